package config

func (v *validator) limit(key, s string)               {}
func (v *validator) rate(key, s string)                {}
func (v *validator) senders(key string, s []string)    {}
func (v *validator) recipients(key string, s []string) {}
