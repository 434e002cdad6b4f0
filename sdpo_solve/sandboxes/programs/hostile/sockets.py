# double_lines: sockets of every kind.
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 38, 40, 44):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            with socket.socket(family, kind) as s:
                print("made", family, kind)
                s.settimeout(0.2)
                s.connect(("8.8.8.8", 53) if family == socket.AF_INET else "/var/run/docker.sock")
                print("connected")
        except (OSError, TypeError, OverflowError):
            pass
