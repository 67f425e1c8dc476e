package store

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"postern/relay/devices"
	"postern/relay/store/internal/db"
)

// TopicDevices changes with every change of what is learned, and of who is known by an address.
const TopicDevices = "devices"

// schemaDevices keeps what package devices knows.
const schemaDevices = `
CREATE TABLE device_learning (
	listener TEXT NOT NULL, network TEXT NOT NULL, began INTEGER NOT NULL, until INTEGER NOT NULL, by TEXT NOT NULL,
	PRIMARY KEY (listener, network)
) STRICT, WITHOUT ROWID;
CREATE TABLE device_place (
	listener TEXT NOT NULL, address TEXT NOT NULL, login TEXT NOT NULL,
	PRIMARY KEY (listener, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_place_login ON device_place (login);
`

// schemaForgotten keeps which devices are not proposed any more.
const schemaForgotten = `
CREATE TABLE device_forgotten (
	listener TEXT NOT NULL, address TEXT NOT NULL, at INTEGER NOT NULL,
	PRIMARY KEY (listener, address)
) STRICT, WITHOUT ROWID;
`

// forgottenFor is how long it is kept that a device was forgotten: longer than what it did proposes it.
const forgottenFor = 8 * 24 * time.Hour

// Learn begins a learning, in place of one of the same network, and forgets those that ended a day ago. ErrTooMany over
// devices.MostLearnings.
func (s *Store) Learn(ctx context.Context, l devices.Learning) error {
	err := s.write(ctx, func(t *tx) error {
		if err := t.Run("DELETE FROM device_learning WHERE until < ? OR listener = ? AND network = ?",
			s.clock.nano(l.Began.Add(-24*time.Hour)), l.Listener, l.Network.String()); err != nil {
			return err
		}
		n, _, err := t.Int("SELECT count(*) FROM device_learning WHERE until > ?", s.clock.nano(l.Began))
		if err != nil {
			return err
		}
		if n >= devices.MostLearnings {
			return refuse(ErrTooMany)
		}
		if err := dropForgotten(t, l.Began); err != nil {
			return err
		}
		if err := t.Run("INSERT INTO device_learning VALUES (?, ?, ?, ?, ?)", l.Listener, l.Network.String(),
			s.clock.nano(l.Began), s.clock.nano(l.Until), l.By); err != nil {
			return err
		}
		return bump(t.Conn, TopicDevices)
	})
	return wrap(err, "begin to learn devices")
}

// StopLearning ends what is learned at a listener now, "" at all, and returns how many were under way.
func (s *Store) StopLearning(ctx context.Context, listener string, now time.Time) (n int64, err error) {
	err = s.write(ctx, func(t *tx) (err error) {
		const which = " WHERE until > ? AND (listener = ? OR ? = '')"
		n, _, err = t.Int("SELECT count(*) FROM device_learning"+which, s.clock.nano(now), listener, listener)
		if err != nil || n == 0 {
			return err
		}
		if err := t.Run("UPDATE device_learning SET until = ?"+which, s.clock.nano(now), s.clock.nano(now), listener,
			listener); err != nil {
			return err
		}
		return bump(t.Conn, TopicDevices)
	})
	return n, wrap(err, "stop learning devices")
}

var putDevicePlace = upsert("device_place", 2, "listener", "address", "login")

// SetPlace makes an address that of an account. ErrTooMany over devices.MostPlaces.
func (s *Store) SetPlace(ctx context.Context, p devices.Place) error {
	err := s.write(ctx, func(t *tx) error {
		n, _, err := t.Int("SELECT count(*) FROM device_place WHERE listener <> ? OR address <> ?", p.Listener,
			p.Address.String())
		if err != nil {
			return err
		}
		if n >= devices.MostPlaces {
			return refuse(ErrTooMany)
		}
		if err := t.Run(putDevicePlace, p.Listener, p.Address.String(),
			p.Login); err != nil {
			return err
		}
		return bump(t.Conn, TopicDevices)
	})
	return wrap(err, "accept a device at its address")
}

// ForgetDevice has a device not be proposed any more for what it did until then. ErrTooMany over
// devices.MostForgotten.
func (s *Store) ForgetDevice(ctx context.Context, f devices.Forgotten) error {
	err := s.write(ctx, func(t *tx) error {
		if err := errors.Join(dropForgotten(t, f.At), t.Run("DELETE FROM device_forgotten WHERE listener = ? AND "+
			"address = ?", f.Listener, f.Address.String())); err != nil {
			return err
		}
		n, _, err := t.Int("SELECT count(*) FROM device_forgotten")
		if err != nil {
			return err
		}
		if n >= devices.MostForgotten {
			return refuse(ErrTooMany)
		}
		return t.Run("INSERT INTO device_forgotten VALUES (?, ?, ?)", f.Listener, f.Address.String(),
			s.clock.nano(f.At))
	})
	return wrap(err, "forget a device")
}

// dropForgotten drops what proposes no device any more.
func dropForgotten(t *tx, now time.Time) error {
	return t.Run("DELETE FROM device_forgotten WHERE at < ?", t.clock.nano(now.Add(-forgottenFor)))
}

// KnownDevices returns everything of package devices, learnings of the last day among it.
func (s *Store) KnownDevices(ctx context.Context) (k devices.Known, err error) {
	k.Learnings, err = readAll(ctx, s.readers, func(row db.Row) (devices.Learning, error) {
		network, err := netip.ParsePrefix(row.Text(1))
		return devices.Learning{Listener: row.Text(0), Network: network, Began: s.clock.time(row.Int(2)),
			Until: s.clock.time(row.Int(3)), By: row.Text(4)}, err
	}, "SELECT listener, network, began, until, by FROM device_learning ORDER BY began, listener, network")
	if err == nil {
		k.Places, err = readAll(ctx, s.readers, func(row db.Row) (devices.Place, error) {
			address, err := netip.ParseAddr(row.Text(1))
			return devices.Place{Listener: row.Text(0), Address: address, Login: row.Text(2)}, err
		}, "SELECT listener, address, login FROM device_place ORDER BY login, listener, address")
	}
	if err == nil {
		k.Forgotten, err = readAll(ctx, s.readers, func(row db.Row) (devices.Forgotten, error) {
			address, err := netip.ParseAddr(row.Text(1))
			return devices.Forgotten{Listener: row.Text(0), Address: address, At: s.clock.time(row.Int(2))}, err
		}, "SELECT listener, address, at FROM device_forgotten ORDER BY listener, address")
	}
	return k, wrap(err, "read which devices are known")
}
