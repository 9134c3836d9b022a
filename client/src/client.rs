//! The client proper: finds a connection for a command, and repeats what is safe to repeat.
//!
//! A command is tried again only if it is certain that it was not executed and the reason is one that passes (no
//! connection, `LOADING`, `TRYAGAIN`, `CLUSTERDOWN`), or if it only reads. A write of unknown outcome is never repeated:
//! the caller gets the error and decides.
//!
//! ```text
//!   call ──▶ the node that answered last ──reply──▶ done
//!      ▲               │
//!      │               ├─ MOVED ─────────▶ follow it, at once, a bounded number of times
//!      └───────────────┼─ READONLY ──────▶ ask CLUSTER SLOTS who leads, follow that
//!                      ├─ CLUSTERDOWN ───▶ learn the other nodes, turn to the next one, after a pause
//!                      ├─ lost ──────────▶ turn to the next one, after a pause, if it may be repeated
//!                      └─ no connection ─▶ turn to the next one; a pause when all have been tried
//! ```
//!
//! [`Client::route`] is the one place that picks a connection. It knows one node at a time, the one that was last found to
//! answer; with a map of slots it will pick by [`Command::routing_key`], and with a session the number of a write will be
//! added in [`Client::call`], which makes repeating writes safe as well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::command::{Command, Effect};
use crate::config::{Address, Config};
use crate::connection::Connection;
use crate::error::{Error, Outcome, ServerError};
use crate::nodes::{Nodes, addresses_in};
use crate::value::Value;

/// Redirections of one call. A few are normal while leaders change; more mean that nodes point at each other.
const REDIRECTS_MAX: u32 = 8;
/// Redirections that are followed without a pause.
const REDIRECTS_AT_ONCE: u32 = 2;

/// A client of one server, or of a cluster of which it knows some nodes. Clones share the connection; it connects when first
/// used and again after a loss.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    nodes: Nodes,
    connection: Option<(Address, Connection)>,
}

/// What a failed attempt leads to.
enum Next {
    /// The failure is the answer.
    GiveUp,
    /// Another try, at once.
    Now,
    /// Another try with this node; it doesn't count.
    Follow(Address),
    /// Another try, after a pause; it counts.
    Later,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(config: Config) -> Self {
        let nodes = Nodes::new(config.address.clone(), &config.seeds);
        let state = Mutex::new(State { nodes, connection: None });
        Client { inner: Arc::new(Inner { config: Arc::new(config), state }) }
    }

    /// The settings that it was made with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The node that is asked at the moment.
    pub async fn address(&self) -> Address {
        self.inner.state.lock().await.nodes.current().clone()
    }

    /// Executes one command.
    ///
    /// # Errors
    /// An error reply is [`Error::Server`]; [`Error::outcome`] says whether the command may have been executed.
    pub async fn call(&self, command: Command) -> Result<Value, Error> {
        let effect = command.effect();
        let mut values = self.attempts(std::slice::from_ref(&command), effect).await?;
        match values.pop() {
            Some(Value::Error(error)) => Err(Error::Server(error)),
            Some(value) => Ok(value),
            None => Err(Error::Invalid("a request without a command".into())),
        }
    }

    /// Executes several commands, sent back to back on one connection; one reply each, errors among them. Redirections are
    /// among the errors too: they are not followed, since commands after one may have been executed already.
    ///
    /// # Errors
    /// Only if the replies can't be had; then the outcome is that of the whole.
    pub async fn pipeline(&self, commands: &[Command]) -> Result<Vec<Value>, Error> {
        let reads_only = commands.iter().all(|command| command.effect() == Effect::Read);
        self.attempts(commands, if reads_only { Effect::Read } else { Effect::Write }).await
    }

    async fn attempts(&self, commands: &[Command], effect: Effect) -> Result<Vec<Value>, Error> {
        let deadline = Instant::now() + self.inner.config.timeout;
        let retry = &self.inner.config.retry;
        let mut pause = retry.backoff_min;
        let mut attempt = 1;
        let mut redirects = 0;
        let mut unreachable: Option<(Address, Error)> = None;
        loop {
            let (address, result) = self.attempt(commands, deadline).await;
            // A lone command's error reply decides about a retry; in a longer pipeline the caller looks at each.
            let failure = match &result {
                Ok(values) => match values.as_slice() {
                    [Value::Error(error)] => Error::Server(error.clone()),
                    _ => return result,
                },
                Err(error) => error.clone(),
            };
            let next = match &failure {
                Error::Server(error) => self.after_refusal(&address, error, deadline).await,
                Error::Connect { .. } => {
                    unreachable = Some((address.clone(), failure.clone()));
                    if self.pass_over(&address).await { Next::Later } else { Next::Now }
                }
                Error::Lost { outcome, .. } if *outcome == Outcome::NotExecuted || effect == Effect::Read => {
                    self.pass_over(&address).await;
                    Next::Later
                }
                _ => Next::GiveUp,
            };
            match next {
                Next::GiveUp => return result,
                Next::Now if Instant::now() < deadline => continue,
                Next::Now => return result,
                Next::Follow(target) => {
                    // Back to a leader that is gone, because the others haven't noticed yet: that is no loop, it ends with
                    // the election.
                    let gone = unreachable.as_ref().filter(|(address, _)| *address == target);
                    redirects += u32::from(gone.is_none());
                    let wait = if gone.is_some() || redirects > REDIRECTS_AT_ONCE { pause } else { Duration::ZERO };
                    if redirects > REDIRECTS_MAX || Instant::now() + wait >= deadline {
                        let looping = || Error::Redirected { address: target.clone(), count: redirects };
                        return Err(gone.map_or_else(looping, |(_, error)| error.clone()));
                    }
                    self.inner.state.lock().await.nodes.follow(target);
                    if !wait.is_zero() {
                        sleep(wait).await;
                        pause = doubled(pause, retry.backoff_max);
                    }
                    continue;
                }
                Next::Later => {}
            }
            if attempt >= retry.attempts_max || Instant::now() + pause >= deadline {
                return result;
            }
            sleep(pause).await;
            pause = doubled(pause, retry.backoff_max);
            attempt += 1;
        }
    }

    /// One try, and the node that was asked.
    async fn attempt(&self, commands: &[Command], deadline: Instant) -> (Address, Result<Vec<Value>, Error>) {
        match timeout_at(deadline, self.route(deadline)).await {
            Ok((address, Ok(connection))) => (address, connection.pipeline_by(commands, deadline).await),
            Ok((address, Err(error))) => (address, Err(error)),
            Err(_) => {
                let address = self.address().await;
                let reason = format!("no connection within {:?}", self.inner.config.timeout);
                (address.clone(), Err(Error::Connect { address, reason }))
            }
        }
    }

    /// The connection for a command: to the node that answered last, made anew if it was lost.
    async fn route(&self, deadline: Instant) -> (Address, Result<Connection, Error>) {
        // Held while connecting, so that many callers make one connection between them.
        let mut state = self.inner.state.lock().await;
        let address = state.nodes.current().clone();
        if let Some((connected, connection)) = &state.connection
            && *connected == address
            && !connection.is_closed()
        {
            return (address, Ok(connection.clone()));
        }
        let mut config = Config::clone(&self.inner.config);
        config.address = address.clone();
        if state.nodes.has_others() {
            // A node that swallows packets must leave time for the others.
            let share = deadline.saturating_duration_since(Instant::now()) / 3;
            config.connect_timeout = config.connect_timeout.min(share.max(config.retry.backoff_min));
        }
        match Connection::open(Arc::new(config)).await {
            Ok(connection) => {
                state.nodes.answered();
                state.connection = Some((address.clone(), connection.clone()));
                (address, Ok(connection))
            }
            Err(error) => (address, Err(error)),
        }
    }

    /// What an error reply leads to.
    async fn after_refusal(&self, address: &Address, error: &ServerError, deadline: Instant) -> Next {
        match error.redirect() {
            // Only servers other than Holdfast send it, while they move a slot.
            Some(redirect) if redirect.only_this_command => return Next::GiveUp,
            Some(redirect) if redirect.address.host.is_empty() => {
                return Next::Follow(Address::new(address.host.clone(), redirect.address.port));
            }
            Some(redirect) => return Next::Follow(redirect.address),
            None => {}
        }
        match error.code() {
            "LOADING" | "TRYAGAIN" => Next::Later,
            "CLUSTERDOWN" | "MASTERDOWN" => {
                // It may be cut off from the others: perhaps they are better off.
                self.learn(address, deadline).await;
                self.pass_over(address).await;
                Next::Later
            }
            "READONLY" => match self.learn(address, deadline).await {
                Some(leader) if leader != *address => Next::Follow(leader),
                _ => Next::GiveUp,
            },
            _ => Next::GiveUp,
        }
    }

    /// Asks a node for the others; gives the leader if the node knows one. A server that is no cluster names nobody.
    async fn learn(&self, address: &Address, deadline: Instant) -> Option<Address> {
        let connection = match &self.inner.state.lock().await.connection {
            Some((connected, connection)) if connected == address => connection.clone(),
            _ => return None,
        };
        let slots = connection.call_by(Command::read("CLUSTER").arg("SLOTS"), deadline).await.ok()?;
        let found = addresses_in(&slots, address);
        let mut state = self.inner.state.lock().await;
        for address in &found {
            state.nodes.learn(address.clone());
        }
        found.into_iter().next()
    }

    async fn pass_over(&self, address: &Address) -> bool {
        self.inner.state.lock().await.nodes.pass_over(address)
    }
}

fn doubled(pause: Duration, limit: Duration) -> Duration {
    pause.saturating_mul(2).min(limit)
}
