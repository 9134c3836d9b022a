//! The client proper: finds a connection for a command, and repeats what is safe to repeat.
//!
//! A command is tried again only if it is certain that it was not executed and the reason is one that passes (no
//! connection, `LOADING`, `TRYAGAIN`, `CLUSTERDOWN`), or if it only reads. A write of unknown outcome is never repeated:
//! the caller gets the error and decides.
//!
//! [`Client::route`] is the one place that picks a connection. It knows one node; with a map of slots it will pick by
//! [`Command::routing_key`], and with a session the number of a write will be added in [`Client::call`], which makes
//! repeating writes safe as well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::command::{Command, Effect};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::{Error, Outcome};
use crate::value::Value;

/// A client of one server. Clones share the connection; it connects when first used and again after a loss.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    current: Mutex<Option<Connection>>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(config: Config) -> Self {
        Client { inner: Arc::new(Inner { config: Arc::new(config), current: Mutex::new(None) }) }
    }

    /// The settings that it was made with.
    pub fn config(&self) -> &Config {
        &self.inner.config
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

    /// Executes several commands, sent back to back on one connection; one reply each, errors among them.
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
        loop {
            let result = self.attempt(commands, deadline).await;
            // A lone command's error reply decides about a retry; in a longer pipeline the caller looks at each.
            let failure = match &result {
                Ok(values) => match values.as_slice() {
                    [Value::Error(error)] => Error::Server(error.clone()),
                    _ => return result,
                },
                Err(error) => error.clone(),
            };
            let lost_read = effect == Effect::Read
                && matches!(failure, Error::Lost { .. })
                && failure.outcome() == Outcome::Unknown;
            let repeat = failure.is_transient() || lost_read;
            if !repeat || attempt >= retry.attempts_max || Instant::now() + pause >= deadline {
                return result;
            }
            sleep(pause).await;
            pause = doubled(pause, retry.backoff_max);
            attempt += 1;
        }
    }

    async fn attempt(&self, commands: &[Command], deadline: Instant) -> Result<Vec<Value>, Error> {
        let connection = match timeout_at(deadline, self.route()).await {
            Ok(connection) => connection?,
            Err(_) => {
                let reason = format!("no connection within {:?}", self.inner.config.timeout);
                return Err(Error::Connect { address: self.inner.config.address.clone(), reason });
            }
        };
        connection.pipeline_by(commands, deadline).await
    }

    /// The connection for a command: for now the one that there is, made anew if it was lost.
    async fn route(&self) -> Result<Connection, Error> {
        // Held while connecting, so that many callers make one connection between them.
        let mut current = self.inner.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(self.inner.config.clone()).await?;
        *current = Some(connection.clone());
        Ok(connection)
    }
}

fn doubled(pause: Duration, limit: Duration) -> Duration {
    pause.saturating_mul(2).min(limit)
}
