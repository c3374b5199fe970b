//! Carries the writer's requests to the adapter and its answers back. Owns the adapter; decides nothing.

use tokio::sync::mpsc;

use super::writer::{StoreReply, StoreRequest};
use crate::persistence::{PersistenceAdapter, StoreError};

/// Serves requests one at a time until the engine ends, then closes the adapter.
pub(super) async fn run<A: PersistenceAdapter>(
    mut adapter: A,
    mut requests: mpsc::Receiver<StoreRequest>,
    replies: mpsc::Sender<StoreReply>,
) -> Result<(), StoreError> {
    while let Some(request) = requests.recv().await {
        let reply = match request {
            StoreRequest::Commit(batch) if batch.ops.is_empty() => StoreReply::Committed(Ok(())),
            StoreRequest::Commit(batch) | StoreRequest::Turn(batch) => {
                StoreReply::Committed(adapter.try_commit(&batch).await)
            }
            StoreRequest::Raise(tenure) => StoreReply::Raised(adapter.raise(tenure).await),
        };
        if replies.send(reply).await.is_err() {
            break;
        }
    }
    adapter.close().await
}
