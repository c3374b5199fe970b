//! Rules that a simulation breaks on purpose, to see that it would notice.

/// A rule that is broken, by what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A batch of unknown outcome is repeated without a raise (R11).
    RepeatsWithoutRaise,
    /// A receipt leaves before what it confirms is durable.
    ConfirmsAtOnce,
    /// What an acknowledging connection sent before does not count (R2).
    ForgetsResults,
    /// A message is confirmed with the first of its acknowledgements (R2).
    ConfirmsWithFirstHolder,
    /// An acknowledgement in a transaction counts as one outside (R2).
    SettlesBeforeCommit,
    /// A message that becomes a dead letter counts as acknowledged (R2).
    SettlesBeforeBurial,
    /// Insert and settle of one message do not cancel (R1).
    NeverCancels,
    /// An answer does not wait for those before it on its connection (R4).
    AnswersOutOfTurn,
    /// A message is delivered before the mark that tells of it is durable (R9).
    DeliversBeforeMark,
    /// A batch in doubt lets the next one pass (R12).
    RepeatsBehindNext,
    /// A settle overtakes its insert, which waits for room (R14).
    SettlesBeforeInsert,
    /// A transaction is dispatched before it is durable (R5).
    ShowsTransactions,
    /// A message of a transaction has its sequence from its SEND (R6).
    NumbersAtSend,
    /// A broker that doubts that it is the master goes on (R24).
    ServesInDoubt,
    /// What is not durable leaves memory (R25).
    LetsAnythingLeave,
    /// What is not durably settled comes back with a page (R26).
    ForgetsPending,
    /// What was settled expires, if a read that is under way brings it (R26).
    ForgetsSettled,
    /// What is with a consumer comes back with a page (R27).
    ForgetsWhatIsOut,
    /// A purge is confirmed before it is durable (R29).
    ConfirmsPurgesAtOnce,
    /// A purge removes what nobody may see yet (R29).
    PurgesWhatIsHidden,
    /// A durable subscription is deleted after another one of its name is made (R29).
    DeletesLater,
    /// A segment is used again before its old name is durably gone (R34).
    ReusesSegmentsAtOnce,
    /// A message is copied beside its settle (R34).
    CopiesWhatIsSettled,
    /// A start believes what may be in the page cache alone (R33).
    BelievesTheCache,
}

/// Which rule is broken: none, but in a simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken(Option<Rule>);

impl Broken {
    /// Breaks a rule; nothing in a release build.
    #[must_use]
    pub fn on_purpose(rule: Rule) -> Self {
        Self(Some(rule))
    }

    /// Whether it is this one.
    #[must_use]
    pub(crate) fn is(self, rule: Rule) -> bool {
        cfg!(debug_assertions) && self.0 == Some(rule)
    }
}
