// Package places says where the files of the service are.
package places
