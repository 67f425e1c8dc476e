// Package fakeprovider is a mail provider in memory or on loopback, for tests and for the demo: it behaves as real
// ones do, bad days included, and counts requests. Never give it real credentials.
package fakeprovider
