// Package queue is the durable queue: what a Store must do, and the scheduler that takes accepted messages through
// attempts until every recipient is delivered, failed or unclear.
//
// The store is the truth; memory holds a bounded window of due messages. The scheduler never owns a message: whatever
// is in the window can be forgotten at any moment and will be found again.
//
// Failure semantics, in the order of a message's life:
//
//   - Submit returns nil only when the message is committed. If the store fails or is full, the client gets 451 4.3.0
//     or 452 4.3.1, and nothing is stored.
//   - An attempt needs a Slot and a lease. The lease is committed before the attempt, so that a killed process leaves a
//     trace of every attempt it may have made. Attempts that a killed process left open are repeated: a duplicate is
//     possible only if an attempt was cut. What an upstream has taken is in the journal before its slot is released and
//     long before it is committed.
//   - A pure function decides what an attempt's results mean. The outcome is committed in one transaction with the
//     reports (DSNs) that it requires. If the store refuses it, it stays in memory and the write is retried with
//     back-off; meanwhile the message is not tried again, and the slot is free.
//   - A store that fails pauses scheduling. It is probed with back-off; running attempts go on.
//   - Only a permanent fault of a recipient or message fails a recipient at once. Other mail stays until it expires
//     (RFC 5321 §4.5.4.1), then it fails with 5.4.7. An expired message still gets the attempt that was due, unless its
//     upstream is paused or has no free slot for another hour.
//   - A failure whose report cannot be made stays pending and is tried again: no mail ends in silence. A null
//     reverse-path never gets a report (RFC 5321 §4.5.5); the trace says so.
//   - Shutdown stops scheduling, lets running attempts end until the drain deadline, then cancels them. An outcome that
//     cannot be recorded by then is lost: its message is tried again. Run returns when everything that it began has
//     ended, adopted hand-offs included.
//
// A file is a part of a message's life, and has the methods of all types that this part calls. Reading order: store.go
// (the terms, and what a store promises), queue.go (what callers see), submit.go (a message comes in), attempt.go (one
// attempt, from lease to committed outcome), outcome.go and retry.go (what results mean, which reports they make, and
// when the message comes again). Then what decides: plan.go (what is done next, and why) with its state machines
// window.go, reader.go, paused.go and health.go; scheduler.go is the lock around it, run.go the loop and the shutdown,
// storework.go what the loop wants of the store. journal.go is what survives a kill, tracing.go what log and trace say.
// docs/queue.md has the states of a message and "why was this message not tried now?".
package queue
