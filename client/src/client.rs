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
//! answer; with a map of slots it will pick by [`Command::routing_key`]. A client made by [`Client::exactly_once`] numbers its
//! writes, which makes repeating them safe as well: see [`crate::session`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::command::{Command, Effect};
use crate::config::{Address, Config};
use crate::connection::Connection;
use crate::error::{Error, Outcome, ServerError};
use crate::nodes::{Nodes, addresses_in};
use crate::session::{NumberedWrite, Sessions};
use crate::value::Value;

/// Redirections of one call. A few are normal while leaders change; more mean that nodes point at each other.
const REDIRECTS_MAX: u32 = 8;
/// Redirections that are followed without a pause.
const REDIRECTS_AT_ONCE: u32 = 2;

/// Of what may be repeated, so many tries find time at least if each of them hangs; and bounds on the time of one.
const TRIES_MIN: u32 = 4;
const TRY_TIME_MIN: Duration = Duration::from_millis(500);
const TRY_TIME_MAX: Duration = Duration::from_secs(5);

/// A client of one server, or of a cluster of which it knows some nodes. Clones share the connection; it connects when first
/// used and again after a loss.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// Numbers its writes.
    sessions: Option<Arc<Sessions>>,
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
        Client { inner: Arc::new(Inner { config: Arc::new(config), state }), sessions: None }
    }

    /// The same client, with writes that take effect exactly once: one whose outcome is unknown is sent again, under the
    /// same number, until it is answered or [`Config::timeout`] is over, whatever connections break and leaders change meanwhile.
    ///
    /// The server must be Holdfast. Each write must be of keys in one slot; FLUSHALL and the like are refused. What a
    /// session costs the server and when it is forgotten is in the documentation's page on sessions.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), holdfast_client::Error> {
    /// use holdfast_client::{Client, Config};
    /// let client = Client::new(Config::new("127.0.0.1:6379".parse()?)).exactly_once();
    /// client.increment("visits", 1).await?; // whatever happens on the way, once
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn exactly_once(&self) -> Client {
        Client { inner: self.inner.clone(), sessions: Some(Arc::default()) }
    }

    /// Gives a write its number without sending it yet, so that it can be sent again after its time was up.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the client is not one of [`Client::exactly_once`]; what keeps a session from being begun.
    pub async fn number(&self, command: Command) -> Result<NumberedWrite, Error> {
        let sessions = self.sessions.clone().ok_or_else(|| Error::Invalid("the client numbers no writes".into()))?;
        NumberedWrite::new(Client { inner: self.inner.clone(), sessions: None }, sessions, command).await
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
        if self.sessions.is_some() && effect == Effect::Write {
            return self.number(command).await?.send().await;
        }
        let (values, _) = self.attempts(std::slice::from_ref(&command), effect, Patience::of(self.config())).await;
        match values?.pop() {
            Some(Value::Error(error)) => Err(Error::Server(error)),
            Some(value) => Ok(value),
            None => Err(Error::Invalid("a request without a command".into())),
        }
    }

    /// Executes a command that does no more when it is executed again, until there is an answer: after a lost connection, too.
    ///
    /// # Errors
    /// As [`Client::call`], and [`Error::Unsettled`] if the last try failed, whatever it says of itself, and an earlier one may have been
    /// executed.
    pub async fn repeat(&self, command: Command) -> Result<Value, Error> {
        let patience = Patience::of(self.config());
        let (values, unknown) = self.attempts(std::slice::from_ref(&command), Effect::Read, patience).await;
        let failure = match values.map(|mut values| values.pop()) {
            Ok(Some(Value::Error(error))) => Error::Server(error),
            Ok(Some(value)) => return Ok(value),
            Ok(None) => Error::Invalid("a request without a command".into()),
            Err(error) => error,
        };
        Err(if unknown { Error::Unsettled { last: Box::new(failure) } } else { failure })
    }

    /// Executes several commands, sent back to back on one connection; one reply each, errors among them. Redirections are
    /// among the errors too: they are not followed, since commands after one may have been executed already.
    ///
    /// # Errors
    /// Only if the replies can't be had; then the outcome is that of the whole. [`Error::Invalid`] for writes of a client that
    /// numbers them: call several at the same time instead.
    pub async fn pipeline(&self, commands: &[Command]) -> Result<Vec<Value>, Error> {
        let reads_only = commands.iter().all(|command| command.effect() == Effect::Read);
        if self.sessions.is_some() && !reads_only {
            return Err(Error::Invalid(
                "a pipeline of writes has no numbers: call them at the same time instead".into(),
            ));
        }
        let effect = if reads_only { Effect::Read } else { Effect::Write };
        self.attempts(commands, effect, Patience::of(self.config())).await.0
    }

    /// Tries until there is an answer, or a failure that must not be repeated, or the patience is over; and whether any try but
    /// the last may have been executed.
    pub(crate) async fn attempts(
        &self,
        commands: &[Command],
        effect: Effect,
        patience: Patience,
    ) -> (Result<Vec<Value>, Error>, bool) {
        let mut unknown = false;
        (self.try_until(commands, effect, patience, &mut unknown).await, unknown)
    }

    async fn try_until(
        &self,
        commands: &[Command],
        effect: Effect,
        patience: Patience,
        unknown: &mut bool,
    ) -> Result<Vec<Value>, Error> {
        let deadline = patience.deadline;
        let retry = &self.inner.config.retry;
        let mut pause = retry.backoff_min;
        let mut attempt = 1;
        let mut redirects = 0;
        let mut unreachable: Option<(Address, Error)> = None;
        loop {
            let (address, result) = self.attempt(commands, patience.of_a_try()).await;
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
                // A node that hangs, or a connection that is dead and doesn't say so: the others may have gone on without it.
                Error::TimedOut { .. } | Error::Protocol { .. } if patience.try_time.is_some() => {
                    self.inner.state.lock().await.connection.take_if(|(connected, _)| *connected == address);
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
                    let too_many = redirects > REDIRECTS_MAX && patience.try_time.is_none();
                    if too_many || Instant::now() + wait >= deadline {
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
            if attempt >= patience.attempts_max || Instant::now() + pause >= deadline {
                return result;
            }
            *unknown |= failure.outcome() == Outcome::Unknown;
            sleep(pause).await;
            pause = doubled(pause, retry.backoff_max);
            attempt = attempt.saturating_add(1);
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

/// How long and how often something is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    deadline: Instant,
    attempts_max: u32,
    /// How long one try may take, if it may be repeated although it may have been executed.
    try_time: Option<Duration>,
}

impl Patience {
    /// What the configuration allows.
    pub(crate) fn of(config: &Config) -> Self {
        let deadline = Instant::now() + config.timeout;
        Patience { deadline, attempts_max: config.retry.attempts_max, try_time: None }
    }

    /// For what may be repeated at will: until the deadline, leaving a node that hangs for another.
    pub(crate) fn stubborn(deadline: Instant, config: &Config) -> Self {
        let try_time = (config.timeout / TRIES_MIN).clamp(TRY_TIME_MIN, TRY_TIME_MAX);
        Patience { deadline, attempts_max: u32::MAX, try_time: Some(try_time) }
    }

    fn of_a_try(&self) -> Instant {
        let try_time = self.try_time.unwrap_or(Duration::MAX);
        Instant::now().checked_add(try_time).map_or(self.deadline, |end| end.min(self.deadline))
    }
}

fn doubled(pause: Duration, limit: Duration) -> Duration {
    pause.saturating_mul(2).min(limit)
}
