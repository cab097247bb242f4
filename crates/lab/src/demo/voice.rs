//! What the demo says, and that it never falls silent.
//!
//! Whoever watches must see at any time what is being waited for. The demo shows each command before it runs it; a thread says it
//! again, with the seconds so far, whenever nothing else was said for [`SILENCE`].

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody waits longer for a line.
pub const SILENCE: Duration = Duration::from_secs(2);

/// Between two looks at whether a line is due.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The obstacle is told in so many characters; `kubectl describe` has all of it.
const TERSE: usize = 110;

/// Speaks on standard output until it is dropped.
#[derive(Debug)]
pub struct Voice {
    speech: Arc<Mutex<Speech>>,
    // The thread ends when this goes.
    _alive: Sender<()>,
}

impl Voice {
    /// Begins to listen to its own silence.
    pub fn begin() -> Self {
        let speech = Arc::new(Mutex::new(Speech::begin(Instant::now())));
        let (alive, ended) = mpsc::channel();
        let spoken = Arc::clone(&speech);
        std::thread::spawn(move || {
            while ended.recv_timeout(LOOK_AGAIN) == Err(RecvTimeoutError::Timeout) {
                // Looked at and said under one lock, so that no line of progress comes after what it waits for.
                let mut speech = locked(&spoken);
                let now = Instant::now();
                if let Some(line) = speech.due(now) {
                    print(&line);
                    speech.said(now);
                }
            }
        });
        Self { speech, _alive: alive }
    }

    /// One indented line.
    pub fn say(&self, line: &str) {
        let mut speech = locked(&self.speech);
        print(line);
        speech.said(Instant::now());
    }

    /// A line that explains, set apart where the terminal can.
    pub fn explain(&self, line: &str) {
        if std::io::stdout().is_terminal() {
            self.say(&format!("\x1b[2m{line}\x1b[0m"));
        } else {
            self.say(line);
        }
    }

    /// A step begins: every command is shown anew.
    pub fn step(&self, title: &str) {
        locked(&self.speech).step(title, Instant::now());
    }

    /// A command runs now. It is shown once in each step, however often it is asked again.
    pub fn command(&self, line: &str) {
        let mut speech = locked(&self.speech);
        let now = Instant::now();
        if speech.command(line, now) {
            print(&format!("$ {line}"));
            speech.said(now);
        }
    }

    /// What is waited for from now on, whatever commands it takes to look. Ends with [`Self::waited`].
    pub fn wait(&self, what: &str) {
        locked(&self.speech).wait(what, Instant::now());
    }

    /// Why it is not there yet.
    pub fn obstacle(&self, words: &str) {
        locked(&self.speech).obstacle(words);
    }

    /// It is there, or was given up.
    pub fn waited(&self) {
        locked(&self.speech).waiting = None;
    }
}

fn locked(speech: &Mutex<Speech>) -> MutexGuard<'_, Speech> {
    speech.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print(line: &str) {
    // One write: a line is never torn. A reader that went away is nothing to stop for.
    let _closed = std::io::stdout().write_all(format!("    {line}\n").as_bytes());
}

/// What was said when and what is being done; decides what is due. Time is an argument.
#[derive(Debug)]
struct Speech {
    last: Instant,
    doing: Activity,
    /// Of longer breath than the commands that look whether it is there.
    waiting: Option<Activity>,
    shown: Vec<String>,
}

#[derive(Debug)]
struct Activity {
    what: String,
    since: Instant,
    obstacle: String,
}

impl Activity {
    fn begin(what: &str, now: Instant) -> Self {
        Self { what: what.to_owned(), since: now, obstacle: String::new() }
    }
}

impl Speech {
    fn begin(now: Instant) -> Self {
        Self { last: now, doing: Activity::begin("", now), waiting: None, shown: Vec::new() }
    }

    fn step(&mut self, title: &str, now: Instant) {
        self.doing = Activity::begin(title, now);
        self.waiting = None;
        self.shown.clear();
    }

    /// Whether it is to be shown.
    fn command(&mut self, line: &str, now: Instant) -> bool {
        self.doing = Activity::begin(line, now);
        let is_new = !self.shown.iter().any(|shown| shown == line);
        if is_new {
            self.shown.push(line.to_owned());
        }
        is_new
    }

    fn wait(&mut self, what: &str, now: Instant) {
        self.waiting = Some(Activity::begin(what, now));
    }

    fn obstacle(&mut self, words: &str) {
        let line = words.lines().next().unwrap_or_default();
        if let Some(waiting) = &mut self.waiting {
            waiting.obstacle = line.chars().take(TERSE).collect();
        }
    }

    fn said(&mut self, now: Instant) {
        self.last = now;
    }

    /// The line to be said at `now` if nothing else is.
    fn due(&self, now: Instant) -> Option<String> {
        if now.saturating_duration_since(self.last) < SILENCE {
            return None;
        }
        let Activity { what, since, obstacle } = self.waiting.as_ref().unwrap_or(&self.doing);
        let seconds = now.saturating_duration_since(*since).as_secs();
        let obstacle = if obstacle.is_empty() { String::new() } else { format!(", not yet: {obstacle}") };
        Some(format!("... {seconds:3} s  {what}{obstacle}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(begun: Instant, seconds: f64) -> Instant {
        begun + Duration::from_secs_f64(seconds)
    }

    /// Lines and when they were said, of a demo that does `doing` for a minute.
    fn a_minute(speech: &mut Speech, begun: Instant) -> Vec<(f64, String)> {
        let mut heard = Vec::new();
        for tenth in 0..600 {
            let now = begun + LOOK_AGAIN * tenth;
            if let Some(line) = speech.due(now) {
                heard.push(((now - begun).as_secs_f64(), line));
                speech.said(now);
            }
        }
        heard
    }

    #[test]
    fn a_command_that_takes_a_minute_is_told_of_every_two_seconds() {
        let begun = Instant::now();
        let mut speech = Speech::begin(begun);
        assert!(speech.command("kubectl delete egressgateway demo", begun));
        let heard = a_minute(&mut speech, begun);
        assert_eq!(heard[0].1, "...   2 s  kubectl delete egressgateway demo");
        let times: Vec<_> = std::iter::once(0.0).chain(heard.iter().map(|(time, _)| *time)).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 2.2), "{times:?}");
        assert!(times.last() > Some(&57.0), "{times:?}");
    }

    #[test]
    fn while_others_speak_nothing_is_due() {
        let begun = Instant::now();
        let mut speech = Speech::begin(begun);
        for second in 0..30 {
            speech.said(after(begun, second.into()));
            assert_eq!(speech.due(after(begun, f64::from(second) + 1.9)), None);
        }
    }

    #[test]
    fn what_is_waited_for_is_told_with_its_obstacle_and_not_the_command_that_looks() {
        let begun = Instant::now();
        let mut speech = Speech::begin(begun);
        speech.wait("the pair is whole again", begun);
        speech.command("kubectl get egressgateway demo", after(begun, 4.8));
        speech.obstacle("1/2 proven\nand much more");
        let told = "...   5 s  the pair is whole again, not yet: 1/2 proven";
        assert_eq!(speech.due(after(begun, 5.0)).as_deref(), Some(told));
    }

    #[test]
    fn a_command_is_shown_once_in_each_step() {
        let now = Instant::now();
        let mut speech = Speech::begin(now);
        assert!(speech.command("kubectl get nodes", now));
        assert!(speech.command("kubectl get pods", now));
        assert!(!speech.command("kubectl get nodes", now));
        speech.step("The problem", now);
        assert!(speech.command("kubectl get nodes", now));
    }
}
