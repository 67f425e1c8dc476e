package doctor

import (
	"postern/auth"
	"postern/relay/check"
	"postern/relay/finding"
)

// unreached names devices that no listener is open to: all are for this machine alone, or none takes the networks that
// a device may log in from.
func (x accountExam) unreached(users []auth.User) (list []finding.Finding) {
	for _, u := range users {
		if len(list) == maxAccounts {
			break
		}
		if !check.Unreached(x.c, u) {
			continue
		}
		if check.AllLocal(x.c) {
			list = append(list, found(codeDeviceUnreached, finding.Fault, said(u.Login),
				"The device "+said(u.Login)+" can reach no listener: all accept connections of this machine alone.",
				"The values on its card are right, and nothing answers it.",
				"Write an address of the network, or none, into address of a [[listener]] of "+
					x.Path+`, such as ":587".`))
			continue
		}
		list = append(list, found(codeDeviceUnreached, finding.Fault, said(u.Login),
			"The device "+said(u.Login)+" can reach no listener: none takes connections from its network.",
			"The values on its card are right, and nothing answers it.",
			"Add its address to networks of a [[listener]] of "+x.Path+", or correct those of the device: postern "+
				"device set "+said(u.Login)+" --network ADDRESS"))
	}
	return list
}
