//! Whose turn it is among a queue's consumers.

use std::collections::VecDeque;

use super::ConsumerKey;

/// Consumers with credit, by priority and within a priority in turn.
#[derive(Debug, Default)]
pub(super) struct ReadyConsumers(Vec<(u8, VecDeque<ConsumerKey>)>);

impl ReadyConsumers {
    /// Lets a consumer take its turn; the caller knows that it is not here yet.
    pub(super) fn push(&mut self, priority: u8, consumer: ConsumerKey) {
        let at = self.0.partition_point(|(higher, _)| *higher > priority);
        match self.0.get_mut(at) {
            Some((same, consumers)) if *same == priority => consumers.push_back(consumer),
            _ => self.0.insert(at, (priority, VecDeque::from([consumer]))),
        }
    }

    /// Whose turn it is, taken out.
    pub(super) fn pop(&mut self) -> Option<(u8, ConsumerKey)> {
        self.0.iter_mut().find_map(|(priority, consumers)| Some((*priority, consumers.pop_front()?)))
    }

    /// Whether nobody waits for a turn.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, consumers)| consumers.is_empty())
    }

    /// Puts back whose turn it still is.
    pub(super) fn push_front(&mut self, priority: u8, consumer: ConsumerKey) {
        if let Some((_, consumers)) = self.0.iter_mut().find(|(same, _)| *same == priority) {
            consumers.push_front(consumer);
        }
    }

    /// Takes a consumer out wherever it stands.
    pub(super) fn remove(&mut self, consumer: ConsumerKey) {
        for (_, consumers) in &mut self.0 {
            consumers.retain(|waiting| *waiting != consumer);
        }
        self.0.retain(|(_, consumers)| !consumers.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_of_a_higher_priority_come_first_and_equals_take_turns() {
        let mut keys = slotmap::SlotMap::<ConsumerKey, ()>::with_key();
        let [a, b, c] = [(); 3].map(|()| keys.insert(()));
        let mut ready = ReadyConsumers::default();
        ready.push(0, a);
        ready.push(5, b);
        ready.push(0, c);
        let order: Vec<_> = std::iter::from_fn(|| ready.pop()).map(|(_, consumer)| consumer).collect();
        assert_eq!(order, [b, a, c]);
    }
}
