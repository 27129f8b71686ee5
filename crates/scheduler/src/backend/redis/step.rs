//! One step as commands of Redis: a call of the library, or of the script where a server has no functions.

use redis::{
    Cmd, Pipeline, RedisResult, Value, aio::ConnectionLike as _, aio::MultiplexedConnection,
};

use super::{connection::Connection, failure, script::Library};

/// The step in both forms.
pub(super) struct Step {
    pub(super) library: Library,
    pub(super) script: redis::Script,
    /// Replicas that have to have a step before its reply counts; 0: none.
    pub(super) wait_replicas: u32,
    /// How long they may take, in milliseconds.
    pub(super) wait_ms: u64,
}

/// The arguments of one step.
pub(super) struct Call<'a> {
    pub(super) keys: Vec<String>,
    pub(super) message: Vec<u8>,
    pub(super) random: u32,
    /// The prefix of the channels for wakes. With a hash tag it means shard channels.
    pub(super) wakes: String,
    pub(super) group: &'a str,
}

/// The reply, and whether enough replicas have it.
pub(super) struct Answer {
    pub(super) reply: Value,
    pub(super) confirmed: bool,
}

// === impl Call ===

impl Call<'_> {
    /// Executes the step. A server that does not have it yet gets it, and the call is repeated. `asking`: the slot is on its way to this server.
    pub(super) async fn send(
        &self,
        step: &Step,
        shared: &Connection,
        connection: &mut MultiplexedConnection,
        asking: bool,
    ) -> RedisResult<Answer> {
        let waits = shared.waits();
        let answer = self.execute(step, shared, connection, asking).await;
        waits.answered();
        answer
    }

    async fn execute(
        &self,
        step: &Step,
        shared: &Connection,
        connection: &mut MultiplexedConnection,
        asking: bool,
    ) -> RedisResult<Answer> {
        if shared.has_functions() {
            let call = || self.command("FCALL", &step.library.name);
            let answer = step.run(call(), connection, asking).await;
            let Err(error) = &answer else {
                return answer;
            };
            let lacks_functions = if failure::is_unknown_function(error) {
                let mut load = redis::cmd("FUNCTION");
                load.arg("LOAD").arg(&step.library.source);
                match load.query_async::<Value>(connection).await {
                    Ok(_) => return step.run(call(), connection, asking).await,
                    // Another connection was faster.
                    Err(error) if failure::is_known_library(&error) => {
                        return step.run(call(), connection, asking).await;
                    }
                    Err(error) if failure::is_refused_command(&error) => true,
                    Err(error) => return Err(error),
                }
            } else {
                failure::is_refused_command(error)
            };
            if !lacks_functions {
                return answer;
            }
            shared.use_script();
        }
        let answer = self.script(step, connection, asking).await;
        if answer.as_ref().is_err_and(failure::is_refused_command) {
            // Neither form is allowed, so the user's rights may have been changed, and may be changed back.
            shared.try_functions();
        }
        answer
    }

    async fn script(
        &self,
        step: &Step,
        connection: &mut MultiplexedConnection,
        asking: bool,
    ) -> RedisResult<Answer> {
        let call = || self.command("EVALSHA", step.script.get_hash());
        match step.run(call(), connection, asking).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                step.script.load_async(connection).await?;
                step.run(call(), connection, asking).await
            }
            answer => answer,
        }
    }

    fn command(&self, word: &str, name: &str) -> Cmd {
        let mut command = redis::cmd(word);
        command.arg(name).arg(self.keys.len()).arg(&self.keys);
        command
            .arg(&self.message)
            .arg(self.random)
            .arg(&self.wakes)
            .arg(self.group);
        command
    }
}

// === impl Step ===

impl Step {
    /// Whatever belongs to the command goes as one pipeline: other steps use the same connection.
    async fn run(
        &self,
        command: Cmd,
        connection: &mut MultiplexedConnection,
        asking: bool,
    ) -> RedisResult<Answer> {
        if !asking && self.wait_replicas == 0 {
            let reply: Vec<Value> = command.query_async(connection).await?;
            return Ok(Answer {
                reply: first(reply),
                confirmed: true,
            });
        }
        let mut pipeline = Pipeline::new();
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command);
        if self.wait_replicas > 0 {
            pipeline
                .cmd("WAIT")
                .arg(self.wait_replicas)
                .arg(self.wait_ms);
        }
        let count = pipeline.len();
        let answers = connection.req_packed_commands(&pipeline, 0, count).await?;
        let mut answers = answers.into_iter().skip(usize::from(asking));
        let reply = answers.next().unwrap_or(Value::Nil).extract_error()?;
        let confirmed = match answers.next() {
            None => true,
            Some(count) => {
                redis::from_redis_value::<u32>(count.extract_error()?)? >= self.wait_replicas
            }
        };
        let reply = first(redis::from_redis_value(reply)?);
        Ok(Answer { reply, confirmed })
    }
}

/// The reply; the instances that were woken follow it.
fn first(mut answer: Vec<Value>) -> Value {
    if answer.is_empty() {
        return Value::Nil;
    }
    answer.swap_remove(0)
}
