package keyring

import "postern/relay/sign"

// Configured returns keys of relay.toml as a Ring has them: they sign, whatever DNS says, and known has what earlier
// looks found. What was found of another key under the same selector says nothing.
func Configured(keys []sign.Key, known []Key) []Key {
	list := make([]Key, 0, len(keys))
	for _, k := range keys {
		record, err := k.Record()
		if err != nil {
			continue // sign.CheckKey accepted it
		}
		key := Key{Domain: k.Domain, Selector: k.Selector, Algorithm: k.Algorithm(), Record: record}
		for i := range known {
			if known[i].same(&key) {
				key.State = known[i].State
			}
		}
		key.Stage = Signing
		list = append(list, key)
	}
	return list
}
