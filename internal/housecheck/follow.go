package main

import (
	"fmt"
	"go/ast"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// A message is followed from hand-off through the calls of these packages.
const (
	pathStart = "handOff"
	maxStays  = 79 // in a file, before the path goes on to another one; it may only fall
)

var pathPackages = []string{"./relay/submission", "./relay/outbound", "./relay/queue"}

// function is one with a body, and what its identifiers mean.
type function struct {
	file string
	decl *ast.FuncDecl
	info *types.Info
}

// follower follows calls as a reader would: each function once, at its first call, and back to the caller.
type follower struct {
	functions map[string]function // by full name
	types     []*types.Named
	seen      map[*ast.FuncDecl]bool
	stack     []string // the files of the callers
	stays     []string // the files that were visited, in order
	climbs    []string // calls that go up to a file of a caller's caller
}

// follow follows the calls of the packages in dir from a function on.
func follow(dir, start string, patterns ...string) (*follower, error) {
	loaded, err := packages.Load(&packages.Config{Dir: dir, Mode: packages.LoadSyntax}, patterns...)
	if err != nil {
		return nil, err
	}
	f := &follower{functions: make(map[string]function), seen: make(map[*ast.FuncDecl]bool)}
	var first []function
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, p.Errors[0]
		}
		first = append(first, f.read(p, start)...)
	}
	if len(first) != 1 {
		return nil, fmt.Errorf("%d functions are called %s in %s", len(first), start, strings.Join(patterns, " "))
	}
	f.visit(first[0])
	return f, nil
}

// read takes in the functions and types of a package and returns the functions named start.
func (f *follower) read(p *packages.Package, start string) (named []function) {
	for _, file := range p.Syntax {
		for _, d := range file.Decls {
			decl, ok := d.(*ast.FuncDecl)
			if !ok || decl.Body == nil {
				continue
			}
			one := function{p.Fset.Position(decl.Pos()).Filename, decl, p.TypesInfo}
			f.functions[p.TypesInfo.Defs[decl.Name].(*types.Func).FullName()] = one
			if decl.Name.Name == start {
				named = append(named, one)
			}
		}
	}
	for _, name := range p.Types.Scope().Names() {
		object, ok := p.Types.Scope().Lookup(name).(*types.TypeName)
		if !ok {
			continue
		}
		if t, ok := object.Type().(*types.Named); ok && !types.IsInterface(t) {
			f.types = append(f.types, t)
		}
	}
	return named
}

func (f *follower) visit(fn function) {
	if f.seen[fn.decl] {
		return
	}
	f.seen[fn.decl] = true
	if n := len(f.stack); n > 0 && fn.file != f.stack[n-1] && slices.Contains(f.stack[:n-1], fn.file) {
		f.climbs = append(f.climbs, fmt.Sprintf("%s calls %s", f.stack[n-1], fn.decl.Name.Name))
	}
	f.stay(fn.file)
	f.stack = append(f.stack, fn.file)
	ast.Inspect(fn.decl.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if next, ok := f.callee(fn.info, call); ok {
				f.visit(next)
				f.stay(fn.file)
			}
		}
		return true
	})
	f.stack = f.stack[:len(f.stack)-1]
}

func (f *follower) stay(file string) {
	if n := len(f.stays); n == 0 || f.stays[n-1] != file {
		f.stays = append(f.stays, file)
	}
}

// callee is the function that a call calls, if it is one of ours; of an interface's method the one implementation.
func (f *follower) callee(info *types.Info, call *ast.CallExpr) (fn function, ok bool) {
	var name *ast.Ident
	switch x := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		name = x
	case *ast.SelectorExpr:
		name = x.Sel
	default:
		return fn, false
	}
	called, ok := info.Uses[name].(*types.Func)
	if !ok {
		return fn, false
	}
	called = called.Origin()
	if recv := called.Signature().Recv(); recv != nil && types.IsInterface(recv.Type()) {
		return f.implementation(recv.Type().Underlying().(*types.Interface), called)
	}
	fn, ok = f.functions[called.FullName()]
	return fn, ok
}

func (f *follower) implementation(of *types.Interface, called *types.Func) (fn function, ok bool) {
	if called.Pkg() == nil { // error
		return fn, false
	}
	found := 0
	for _, t := range f.types {
		if !hasAll(t, of) {
			continue
		}
		method, _, _ := types.LookupFieldOrMethod(types.NewPointer(t), true, called.Pkg(), called.Name())
		if one, ok := f.functions[method.(*types.Func).FullName()]; ok {
			fn = one
			found++
		}
	}
	return fn, found == 1
}

// hasAll compares methods by their names: packages that are loaded one by one do not share their types.
func hasAll(t *types.Named, of *types.Interface) bool {
	for m := range of.Methods() {
		o, _, _ := types.LookupFieldOrMethod(types.NewPointer(t), true, m.Pkg(), m.Name())
		if _, ok := o.(*types.Func); !ok {
			return false
		}
	}
	return true
}

// reportPath says whether the path of a message holds its budget.
func reportPath(f *follower) bool {
	for _, c := range f.climbs {
		fmt.Println("housecheck: the path of a message climbs back up:", c)
	}
	switch n := len(f.stays); {
	case n > maxStays:
		fmt.Printf("housecheck: the path of a message makes %d stays in files, the budget is %d\n", n, maxStays)
	case n < maxStays:
		fmt.Printf("housecheck: the path of a message makes %d stays, please lower the budget of %d\n", n, maxStays)
	}
	return len(f.climbs) == 0 && len(f.stays) <= maxStays
}
