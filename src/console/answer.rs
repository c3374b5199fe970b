//! Which path says what.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use serde_json::json;
use tokio::{sync::Mutex, time::interval};

use super::{
    View,
    metrics::{self, Histories},
    pulse::Pulse,
};
use crate::types::Role;

/// What is told to somebody who is lost.
const PATHS: &str = "/health/live\n/health/ready\n/health/master\n/metrics\n";

/// Recorded commits are gathered this often, though nobody reads them: until then each of them takes memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Answers requests from what it may look at.
#[derive(Debug)]
pub(super) struct Answerer {
    pub(super) pulse: Pulse,
    /// One page of metrics is made at a time: each costs the engine a look at every destination.
    pub(super) histories: Mutex<Histories>,
    pub(super) view: View,
}

impl Answerer {
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let role = *self.view.role.borrow();
        match request.uri().path() {
            "/health/live" => tell(role, self.pulse.beats().await),
            "/health/ready" => tell(role, role.is_ready()),
            "/health/master" => tell(role, role.is_serving()),
            "/metrics" => self.metrics(role).await,
            _ => text(StatusCode::NOT_FOUND, PATHS),
        }
    }

    async fn metrics(&self, role: Role) -> Answer {
        let histories = self.histories.lock().await;
        match metrics::page(role, &self.view, self.pulse.tasks(), &histories).await {
            Some(page) => answer(StatusCode::OK, METRICS_TYPE, page),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer\n"),
        }
    }

    /// Gathers what was recorded, for ever.
    pub(super) async fn keep_up(self: Arc<Self>) {
        let mut beat = interval(UPKEEP_EVERY);
        loop {
            beat.tick().await;
            self.histories.lock().await.gather();
        }
    }
}

/// The role, and whether that is what was asked for.
fn tell(role: Role, good: bool) -> Answer {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = match (role.term(), role.since()) {
        (Some(term), Some(since)) => json!({ "role": role.name(), "term": term.0, "since_ms": since.0 }),
        _ => json!({ "role": role.name() }),
    };
    answer(status, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, body: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
