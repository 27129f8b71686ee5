//! Parts of rules that can be switched off, to show which tests fail without them: see `scripts/mutate`.
//!
//! This works only with the feature `mutations`, which no other crate enables. Without it [`without`] is false at compile time. The name of a part
//! begins with its line of the contract or its rule (docs/protocol.md).

macro_rules! parts {
    ($($part:ident $what:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Part { $(#[doc = $what] $part,)* }

        #[cfg(feature = "mutations")]
        const PARTS: &[(&str, Part)] = &[$((stringify!($part), Part::$part),)*];
    };
}

// `scripts/mutate` reads these lines.
parts! {
    A1Priority "the priority orders the queue",
    A2Slots "`max_parallel_requests` is a limit",
    A3Windows "window limits hold",
    A4NextFree "the time `next_free` is known",
    A5NeverFits "a ticket that can never fit is refused",
    A7Leave "a ticket that leaves says so",
    A8Arrival "a retry keeps its first arrival",
    A9Cooldown "a cooling deployment gets no calls",
    A9OneProbe "one probe at a time",
    A9HealthyFirst "healthy deployments are preferred to probing",
    A9Weighed "successes weigh against upstream errors",
    A9CountsOnce "a request that fails everywhere counts once",
    A9LastHealthy "the last healthy deployment does not cool for upstream errors",
    P1Replay "a retransmission gets a replay",
    P1NoSignOfLife "a retransmission is no sign of life",
    P1Gap "a batch gap is a loss",
    P1UnknownEpoch "an unknown epoch is a loss",
    P1EndsFormer "opening a session ends the former one",
    P2SameMessage "a message that failed is sent again with its number",
    P3Wait "a recovery waits for the reports of instances",
    P3Fresh "fresh instances alone do not end a recovery early",
    P3Named "a recovery expects the instances that others name",
    P3NoExpiry "no entry leaves its window while a group recovers",
    P3Woken "all instances are woken",
    P4Certain "a state made with the process needs no recovery",
    P5Later "a new state begins 10 s above the clock",
    P5SenderKnows "numbers are not below what a sender knows",
    P5TimePassed "a recovery adds the time that has passed",
    P5GrowsWithTime "what a sender knows grows with time",
    P6HighestTime "the group clock follows the highest server time",
    P6NeverBack "the group clock never goes back",
    P7Unresponsive "unresponsive sessions end",
    P7OneHeartbeat "the lease clock advances by a heartbeat at most",
    P8OpenCharge "a charge does not expire before its dispatch is reported",
    P8Report "dispatches are reported",
    P8SessionEnd "a session's end gives open charges a time",
    P9InSession "a grant is dispatched only in its session",
    P9FirstTransmission "the time for it counts from the first transmission",
    P10Revoked "undelivered grants are revoked",
    P11ChargeLog "charges are kept after their call",
    P11ClosesAfter "a session is closed only when its charge log is empty",
    P11Clean "a close with charges in the log is not clean",
    P12Charges "snapshots have charges",
    P12OpenCalls "snapshots have open calls",
    P12Cooldowns "snapshots have cooldowns",
    P12Refunds "snapshots have refunds",
    P12LaterTime "the later of two times wins",
    P13Limits "limits are charged for unaccounted instances",
    P13UsageSnapshot "the usage snapshot is charged",
    P13AccountsForAll "... only if it accounts for all unaccounted instances",
    P13ShorterWindows "... less where shorter windows bound what was granted since the usage snapshot",
    P13DispatchedLater "the charge counts until grants can no longer be dispatched",
    P13Removed "the charge is removed when all have reported",
    P14Excess "tokens above the reservation are charged",
    P15HeadOwner "the head's owner is woken",
    P15GrantOwner "owners of grants are woken",
    P15Poll "the head's owner polls where no time is known",
    P16Grants "a step makes a limited number of grants",
    P16More "`more` asks for another step at once",
    P17Dirty "a partial write means recovery",
    P17Master "another master means recovery",
    P18Pacing "pacing holds tickets",
    P18Reserve "a reserve keeps a part of each limit",
    P18Aging "waiting counts",
    P18Lifted "better tickets behind the head lift what holds it",
    P18OtherOrder "another order is a recovery",
    P19Shares "tenants share the service",
    P19LastEnded "a service begins where the tenant's last one ended",
    P19BeingServed "... but not before what is being served",
    P19Retry "a retry keeps its start tag",
    P19Floor "after a loss services begin above the tag floor",
    P20Known "a ticket goes only to deployments that its session knows",
    P20Stricter "the stricter of two limits holds",
    P20NewestLimits "a ticket above the stricter limit goes by the newest",
    P20LongestLease "sessions are judged by the longest lease",
    P21Share "an instance alone uses its part of the limits",
    P22Order "only deployments of the lowest order are chosen from",
    P22Returns "... and one whose cooldown is over is probed although others have room",
    P22LeastBusy "the least busy deployment is chosen",
    P22Latency "the fastest deployment is chosen",
    P22OneMeasures "one call at a time measures a deployment",
    P22Forgotten "a latency is forgotten after a time",
    P23Paused "a paused group grants nothing",
    P23Held "tickets of a paused key are held",
    P23Reported "overrides are in snapshots",
    P23Newer "newer overrides replace older ones",
}

/// Whether this part is switched off.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn without(_part: Part) -> bool {
    false
}

/// Whether this part is switched off: the one that the environment's `VORRANG_MUTATION` names.
#[cfg(feature = "mutations")]
pub(crate) fn without(part: Part) -> bool {
    use std::sync::OnceLock;

    static OFF: OnceLock<Option<Part>> = OnceLock::new();
    let off = OFF.get_or_init(|| {
        let name = std::env::var("VORRANG_MUTATION").ok()?;
        let found = PARTS.iter().find(|(known, _)| *known == name);
        assert!(
            found.is_some(),
            "VORRANG_MUTATION={name}: there is no such part"
        );
        found.map(|(_, part)| *part)
    });
    *off == Some(part)
}
