// Package queue is the durable queue: what a Store must do, and the scheduler that takes accepted
// messages through attempts until every recipient is delivered or failed.
//
// The store is the truth; memory holds a bounded window of due messages. The scheduler never owns a
// message: whatever is in the window can be forgotten at any moment and will be found again.
//
// Failure semantics, in the order of a message's life:
//
//   - Submit returns nil only when the message is committed. A store that fails or is full is 451 4.3.0
//     or 452 4.3.1 to the client, and nothing is kept.
//   - An attempt needs a Slot and a lease. The lease is committed before the attempt, so that a killed
//     process leaves a trace of every attempt it may have made. Attempts of a former life are made
//     again: a duplicate is possible only where an attempt was cut. What an upstream took is in the
//     journal before its slot is given back and long before it is committed.
//   - A pure function decides what an attempt's results mean. The outcome is committed as one transaction
//     with the reports (DSNs) it makes necessary. While the store refuses it, it stays in memory and is
//     offered again with back-off; the message cannot be tried again meanwhile, the slot is free.
//   - A store that fails pauses scheduling. It is probed with back-off; running attempts go on.
//   - Only permanent faults of a recipient or message fail a recipient at once. Everything else keeps
//     the mail until its time is over (RFC 5321 §4.5.4.1), then it fails with 5.4.7. A message past its
//     time still gets the attempt it was promised, unless its upstream is paused or has no slot for an
//     hour more.
//   - A failure whose report cannot be made stays pending and is tried again: nobody's mail ends in
//     silence. A null reverse-path never gets a report (RFC 5321 §4.5.5); the trace says so.
//   - Shutdown stops scheduling and lets running attempts end until the drain deadline, then cancels
//     them. An outcome that could not be recorded by then is forgotten: its message is tried again. Run
//     returns when everything that was begun has ended, hand-offs that it adopted included.
//
// Reading order: store.go (the words, and what a store promises), queue.go (what callers see), submit.go (a
// message comes in), run.go (the loop and the shutdown), plan.go (what is done next, and why) with its
// machines window.go and line.go, reader.go, paused.go and health.go; then what the loop begins: attempt.go
// and storework.go. What results mean: outcome.go, retry.go, report.go. scheduler.go is the lock around the
// plan, journal.go what survives a kill, tracing.go what people are told. docs/queue.md has the states of a
// message and "why was this message not tried now?".
package queue
