//go:build linux && (amd64 || arm64)

package sandbox

import (
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, the input of a filter: little-endian on both architectures.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArg0 = 16 // its low 32 bits; further arguments follow at 8 bytes each
)

// Results of the filter.
const (
	allow   = unix.SECCOMP_RET_ALLOW
	refuse  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill    = unix.SECCOMP_RET_KILL_PROCESS
)

// filter returns the BPF program that the kernel runs for each call of the process self.
func filter(self uint32) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: offsetCall, Size: 4},
	}
	for _, call := range slices.Concat(calls, callsHere) {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 1}, bpf.RetConstant{Val: allow})
	}
	for _, r := range rules(self) {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: r.call, SkipTrue: 5},
			bpf.LoadAbsolute{Off: offsetArg0 + 8*r.arg, Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: r.mask},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: r.want, SkipTrue: 1},
			bpf.RetConstant{Val: allow},
			bpf.LoadAbsolute{Off: offsetCall, Size: 4})
	}
	return append(program,
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: firstShared, SkipTrue: 1},
		bpf.RetConstant{Val: unknown},
		bpf.RetConstant{Val: refuse})
}
