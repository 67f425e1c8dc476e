package api

import (
	"context"
	"net/http"
	"time"

	"postern/operate"
	"postern/relay/devices"
)

// learningAPI serves devices that have no account yet.
type learningAPI struct{ ops *operate.Operations }

func learningRoutes(s *server) []route {
	l := learningAPI{s.Operations}
	needs := func(op operate.Operation) []operate.Operation { return []operate.Operation{op} }
	return []route{
		handle(s, route{method: http.MethodGet, path: "/learning", id: "learning", tag: "Devices",
			needs: needs(operate.SeeAccounts), summary: "What is being learned, and which devices were seen"}, l.list),
		handle(s, route{method: http.MethodPost, path: "/learning", id: "learning-begin", tag: "Devices",
			needs: needs(operate.LearnDevices), faults: []kind{notFound, conflict}, status: http.StatusCreated,
			summary: "Let the devices of a network send without login for a while",
			about:   "What they send is held. It ends by itself after two hours at most."}, l.begin),
		handle(s, route{method: http.MethodDelete, path: "/learning", id: "learning-stop", tag: "Devices",
			needs: needs(operate.LearnDevices), summary: "End what is being learned"}, l.stop),
		handle(s, route{method: http.MethodPost, path: "/learning/{address}/accept", id: "learning-accept",
			tag: "Devices", needs: needs(operate.AcceptDevice), faults: []kind{notFound, conflict}, once: true,
			summary: "Make an account of a device",
			about: "It needs no login at its address from then on. The password is generated, and shown in this " +
				"answer only."}, l.accept),
		handle(s, route{method: http.MethodDelete, path: "/learning/{address}", id: "learning-forget",
			tag: "Devices", needs: needs(operate.ForgetDevice), faults: []kind{notFound, conflict},
			summary: "Propose a device no more",
			about: "Until it sends again while learning. With `delete`, what is held of it is deleted, which needs " +
				"the right to delete messages, too."}, l.forget),
	}
}

// Learned is what is being learned, and which devices were seen.
type Learned struct {
	Learning  []devices.Learning `json:"learning"`
	Proposals []operate.Proposal `json:"proposals"`
}

func (l learningAPI) list(ctx context.Context, by operate.Actor, _ *struct{}) (*shown[Learned], error) {
	now := time.Now()
	learnings, err := l.ops.Devices.Learnings(ctx, by, now)
	if err != nil {
		return nil, err
	}
	proposals, err := l.ops.Devices.Proposals(ctx, by, now)
	if err != nil {
		return nil, err
	}
	return &shown[Learned]{Learned{append([]devices.Learning{}, learnings...),
		append([]operate.Proposal{}, proposals...)}}, nil
}

// NewLearning is a network whose devices are to be learned.
type NewLearning struct {
	Listener string `json:"listener,omitempty" maxLength:"64" doc:"Without it, the only one for old devices."`
	Network  string `json:"network" minLength:"1" maxLength:"64" doc:"CIDR."`
	Minutes  int    `json:"minutes" minimum:"1" maximum:"120"`
}

func (l learningAPI) begin(ctx context.Context, by operate.Actor, in *shown[NewLearning]) (*made[devices.Learning],
	error) {
	done, err := l.ops.Devices.Learn(ctx, by, operate.LearnRequest{Listener: in.Body.Listener,
		Network: in.Body.Network, For: time.Duration(in.Body.Minutes) * time.Minute})
	if err != nil {
		return nil, err
	}
	return &made[devices.Learning]{Prefix + "/learning", done}, nil
}

type stopped struct {
	Listener string `query:"listener" maxLength:"64" doc:"Without it, at all."`
}

// Stopped is how many networks were being learned.
type Stopped struct {
	Stopped int64 `json:"stopped"`
}

func (l learningAPI) stop(ctx context.Context, by operate.Actor, in *stopped) (*shown[Stopped], error) {
	n, err := l.ops.Devices.StopLearning(ctx, by, in.Listener)
	if err != nil {
		return nil, err
	}
	return &shown[Stopped]{Stopped{n}}, nil
}

// NewPlace is what an accepted device is to be.
type NewPlace struct {
	Login   string   `json:"login,omitempty" maxLength:"320" doc:"Without it, what the device calls itself."`
	Senders []string `json:"senders,omitempty" maxItems:"1000" doc:"Without them, those that it was seen to use."`
	Groups  []string `json:"groups,omitempty" maxItems:"1000"`
	Note    string   `json:"note,omitempty" maxLength:"2000"`
	Release bool     `json:"release,omitempty" doc:"What is held of it goes out, as far as it is from its senders."`
}

type accept struct {
	Address string `path:"address" maxLength:"64"`
	Body    NewPlace
}

func (l learningAPI) accept(ctx context.Context, by operate.Actor, in *accept) (*shown[operate.Accepted], error) {
	done, err := l.ops.Devices.Accept(ctx, by, operate.Acceptance{Address: in.Address, Name: in.Body.Login,
		Senders: in.Body.Senders, Groups: in.Body.Groups, Note: in.Body.Note, Release: in.Body.Release})
	if err != nil {
		return nil, err
	}
	return &shown[operate.Accepted]{done}, nil
}

type forget struct {
	Address string `path:"address" maxLength:"64"`
	Delete  bool   `query:"delete" doc:"What is held of it is deleted, too; nobody is told."`
}

// ForgottenDevice is a device that is proposed no more.
type ForgottenDevice struct {
	Address string `json:"address"`
	Deleted int64  `json:"deleted" doc:"Messages of it."`
}

func (l learningAPI) forget(ctx context.Context, by operate.Actor, in *forget) (*shown[ForgottenDevice], error) {
	n, err := l.ops.Devices.Forget(ctx, by, operate.Forgetting{Address: in.Address, Delete: in.Delete})
	if err != nil {
		return nil, err
	}
	return &shown[ForgottenDevice]{ForgottenDevice{in.Address, n}}, nil
}
