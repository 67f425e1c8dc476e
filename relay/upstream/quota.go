package upstream

import "time"

const maxQuota = 31 * 24 * time.Hour
