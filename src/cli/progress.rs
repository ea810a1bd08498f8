//! How far a command has come, on stderr: a bar on a terminal, lines for whoever asks for them.
//!
//! Guarantees: never on stdout; nothing on a terminal before a second has passed, and nothing of it
//! is left when the command ends; lines come at most once a second, and at once when something
//! else begins. Relies on: sentences that say "N of M" where they know both, from the process that
//! does the work.

use std::io::{self, IsTerminal, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde_json::json;

/// What is quicker needs no progress.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// Least time between two lines of one phase.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often a bar is drawn.
const TICK: Duration = Duration::from_millis(200);

/// What is said of progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// A bar if stderr is a terminal, else nothing
    #[default]
    Auto,
    /// Lines
    Plain,
    /// A JSON object a line
    Json,
    /// Nothing
    None,
}

/// The command that is running; there is one at a time.
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    begun: Instant,
    bar: Option<ProgressBar>,
    /// The last line, and what it was about.
    line: Option<(Instant, String)>,
}

/// Something begins that may take a while. It is over with what is returned.
pub(super) fn begin(mode: Mode, what: &str) -> Guard {
    let bar = mode == Mode::Auto && io::stderr().is_terminal();
    let bar = bar.then(|| show_later(what));
    *RUNNING.lock() = Some(Running { begun: Instant::now(), bar, line: None });
    Guard
}

/// Ends the progress of a command.
pub(super) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        end();
    }
}

/// Takes the bar away, as before anything else is said.
pub(super) fn end() {
    if let Some(Running { bar: Some(bar), .. }) = RUNNING.lock().take() {
        bar.finish_and_clear();
    }
}

/// A bar that shows itself when the command is still running after a while.
fn show_later(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
    bar.set_message(what.to_owned());
    let later = bar.downgrade();
    // Without the thread there is no bar, which is no reason to fail.
    let _ = thread::Builder::new().name("progress".to_owned()).spawn(move || {
        thread::sleep(QUIET_TIME);
        let running = RUNNING.lock();
        if let (Some(_), Some(bar)) = (&*running, later.upgrade()) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
        }
    });
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Says how far the command has come.
pub(super) fn tell(mode: Mode, text: &str) {
    let mut running = RUNNING.lock();
    let Some(running) = running.as_mut() else { return };
    let part = part(text);
    if let Some(bar) = &running.bar {
        if let Some((done, of)) = part {
            bar.set_style(style("[{bar:20}] {percent:>3} %, about {eta} left: {wide_msg}"));
            bar.set_length(of);
            bar.set_position(done);
        } else {
            bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        }
        bar.set_message(text.to_owned());
        return;
    }
    if !matches!(mode, Mode::Plain | Mode::Json) || !running.is_due(text) {
        return;
    }
    let line = if mode == Mode::Plain {
        text.to_owned()
    } else {
        let mut line = json!({
            "progress": text,
            "elapsed_millis": u64::try_from(running.begun.elapsed().as_millis()).unwrap_or(0),
        });
        if let Some((done, of)) = part {
            (line["done"], line["of"]) = (json!(done), json!(of));
        }
        line.to_string()
    };
    let _ = writeln!(io::stderr().lock(), "{line}");
}

impl Running {
    /// True for the first line of a phase, and then once a while.
    fn is_due(&mut self, text: &str) -> bool {
        let phase = text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        let again = |(at, last): &(Instant, String)| last == phase && at.elapsed() < LINE_EVERY;
        if self.line.as_ref().is_some_and(again) {
            return false;
        }
        self.line = Some((Instant::now(), phase.to_owned()));
        true
    }
}

/// The numbers of "N of M".
fn part(text: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = text.split([' ', ',', ';']).collect();
    let triple = words.windows(3).find(|words| {
        words[1] == "of" && words[0].parse::<u64>().is_ok() && words[2].parse::<u64>().is_ok()
    })?;
    let (done, of) = (triple[0].parse().ok()?, triple[2].parse().ok()?);
    (of > 0 && done <= of).then_some((done, of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_sentences() {
        assert_eq!(part("Reading container 3 of 17"), Some((3, 17)));
        assert_eq!(part("Verified 0 of 5 MiB, 0 damaged chunks"), Some((0, 5)));
        assert_eq!(part("Freeing 3 containers, 2 of them after"), None);
        assert_eq!(part("Counting who needs each of 9 chunks"), None);
        assert_eq!(part("9 of 3"), None);
        assert_eq!(part("0 of 0"), None);
        assert_eq!(part(""), None);
    }

    #[test]
    fn a_phase_has_a_line_at_once_and_then_once_a_second() {
        let mut running = Running { begun: Instant::now(), bar: None, line: None };
        assert!(running.is_due("Reading 1 of 9") && !running.is_due("Reading 2 of 9"));
        assert!(running.is_due("Counting") && running.is_due("Reading 3 of 9"));
    }
}
