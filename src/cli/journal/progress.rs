//! How far a long command has come, on a terminal; nothing on anything else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::persistence::journal::Progress;

const BAR: &str = "{msg} [{wide_bar}] {bytes} of {total_bytes}, {eta} left";

/// Draws a bar on standard error if that is a terminal; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200)); // a segment may take longer
        Self(bar)
    }

    pub(super) fn show(&mut self, progress: Progress) {
        self.0.set_message(progress.step);
        self.0.set_length(progress.total_bytes);
        self.0.set_position(progress.done_bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
