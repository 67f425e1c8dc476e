package account

// StandStill has nobody told of the end of the lease, as in a process that stands still.
func (s *Slot[H]) StandStill() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	stop(&s.a.lease.alarm)
}
