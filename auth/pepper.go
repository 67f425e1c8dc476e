package auth

// PepperName and PepperSize (octets) are the install secret of the store that HashGenerated and
// NewStoreSource are given: whoever makes accounts and whoever verifies them must use the same.
const (
	PepperName = "auth-pepper"
	PepperSize = 32
)
