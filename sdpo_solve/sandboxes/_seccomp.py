"""The system calls that no test needs, as a seccomp filter.

A second wall behind the box's own: it makes sockets, foreign memory, namespaces and everything that would
outlive a process (System V memory, message queues, keys) fail with EPERM. It does not replace the filter that
the engine itself sets.
"""

from __future__ import annotations

import struct

_MACHINES = ("x86_64", "aarch64")
_REFUSED = {  # name: its number on each of the machines
    "socket": (41, 198),
    "ptrace": (101, 117),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "kcmp": (312, 272),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_NEW_NAMESPACE = 0x7E020000  # the CLONE_NEW flags of clone
_X32 = 0x40000000

# Operations of classic BPF and answers of seccomp (linux/bpf_common.h, linux/seccomp.h).
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def refused(machine: str) -> dict[str, int]:
    """Name and number of every system call refused on a known machine."""
    place = _MACHINES.index(machine)
    return {name: numbers[place] for name, numbers in _REFUSED.items()}


def seccomp_filter(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`."""
    ops = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_ANSWER, 0, 0, _KILL)]
    ops += [(_LOAD, 0, 0, 0), (_JUMP_AT_LEAST, 0, 1, _X32), (_ANSWER, 0, 0, _KILL)]
    ops += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_ANSWER, 0, 0, _ENOSYS)]  # its flags are out of a filter's reach
    for number in refused(machine).values():
        ops += [(_JUMP_EQUAL, 0, 1, number), (_ANSWER, 0, 0, _EPERM)]
    ops += [(_JUMP_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, 16)]
    ops += [(_JUMP_ANY_BIT, 0, 1, _NEW_NAMESPACE), (_ANSWER, 0, 0, _EPERM), (_ANSWER, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *op) for op in ops)


def filters() -> dict[str, str]:
    """The filter of every known machine, in hex; the runner takes the one of its own."""
    return {machine: seccomp_filter(machine).hex() for machine in _MACHINES}
