"""The system calls that a submission may not make, as a filter that the kernel runs (seccomp).

The filter refuses what a data analysis does not need and what has led out of sandboxes before: new namespaces, mounts,
other processes' memory, kernel modules, kernel-side programs, the keyrings of the user, memory that no limit counts,
and sockets of every family but UNIX and IP. IP sockets lead nowhere, because the sandbox has a network of its own.
"""

from __future__ import annotations

import errno
import platform
import struct

# The numbers of a call on x86-64 and on arm64; "-" if arm64 does not have it.
REFUSED = """
io_uring_setup 425 425      io_uring_enter 426 426      io_uring_register 427 427    bpf 321 280
perf_event_open 298 241     ptrace 101 117              process_vm_readv 310 270     process_vm_writev 311 271
process_madvise 440 440     kcmp 312 272                pidfd_getfd 438 438          userfaultfd 323 282
keyctl 250 219              add_key 248 217             request_key 249 218          memfd_create 319 279
memfd_secret 447 447        shmget 29 194               shmat 30 196                 msgget 68 186
semget 64 190               mq_open 240 180             fanotify_init 300 262        kexec_load 246 104
kexec_file_load 320 294     init_module 175 105         finit_module 313 273         delete_module 176 106
open_by_handle_at 304 265   name_to_handle_at 303 264   quotactl 179 60              quotactl_fd 443 443
acct 163 89                 swapon 167 224              swapoff 168 225              reboot 169 142
syslog 103 116              settimeofday 164 170        clock_settime 227 112        clock_adjtime 305 266
adjtimex 159 171            mount 165 40                umount2 166 39               pivot_root 155 41
chroot 161 51               move_mount 429 429          open_tree 428 428            open_tree_attr 467 467
fsopen 430 430              fsconfig 431 431            fsmount 432 432              fspick 433 433
mount_setattr 442 442       unshare 272 97              setns 308 268                vhangup 153 58
lookup_dcookie 212 18       nfsservctl 180 42           move_pages 279 239           migrate_pages 256 238
iopl 172 -                  ioperm 173 -                modify_ldt 154 -             uselib 134 -
"""
CLONE3, CLONE, SOCKET = (435, 435), (56, 220), (41, 198)
NAMESPACES = 0x7E020080  # CLONE_NEW*: time, mount, cgroup, UTS, IPC, user, PID, network
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32 = 0x40000000  # calls of x86-64's other ABI have this bit

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # where they lie in the kernel's seccomp_data
KILL, ALLOW, ERROR = 0x80000000, 0x7FFF0000, 0x00050000


def program(machine: str = "") -> bytes:
    """The filter as the kernel takes it. Raises KeyError for other machines than x86_64 and aarch64.

    >>> len(program("x86_64")) % 8, program("aarch64") != program("x86_64")
    (0, True)
    """
    column, architecture = ARCHITECTURES[machine or platform.machine()]
    words = REFUSED.split()
    refused = [int(number) for number in words[1 + column :: 3] if number != "-"]
    steps = [
        *((LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)),
        *((LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)),
        # The C library uses clone, whose flags a filter can see, where clone3 does not exist.
        *((EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, ERROR | errno.ENOSYS)),
        *_argument(CLONE[column], [(ANY_BIT, 0, 1, NAMESPACES), (RETURN, 0, 0, ERROR | errno.EPERM)]),
        *_argument(
            SOCKET[column],
            [*((EQUAL, 4 - i, 0, family) for i, family in enumerate(FAMILIES, 1)), (RETURN, 0, 0, ERROR | errno.EPERM)],
        ),
    ]
    for number in refused:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *step) for step in [*steps, (RETURN, 0, 0, ALLOW)])


def _argument(number: int, checks: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Steps that check the first argument of one call; what passes is allowed."""
    return [
        (EQUAL, 0, len(checks) + 2, number),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *checks,
        (RETURN, 0, 0, ALLOW),
    ]


def profile() -> dict[str, object]:
    """The same filter as a container engine takes it."""
    eperm: dict[str, object] = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    others = [family for family in range(max(FAMILIES)) if family not in FAMILIES]
    arguments: list[tuple[str, dict[str, object]]] = [
        *(("socket", {"value": family, "op": "SCMP_CMP_EQ"}) for family in others),
        ("socket", {"value": max(FAMILIES), "op": "SCMP_CMP_GT"}),
        *(
            ("clone", {"value": 1 << bit, "valueTwo": 1 << bit, "op": "SCMP_CMP_MASKED_EQ"})
            for bit in range(32)
            if NAMESPACES >> bit & 1
        ),
    ]
    refused = [
        {"names": REFUSED.split()[::3], **eperm},
        {"names": ["clone3"], **eperm, "errnoRet": errno.ENOSYS},
        *({"names": [name], **eperm, "args": [{"index": 0, **argument}]} for name, argument in arguments),
    ]
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": refused}
