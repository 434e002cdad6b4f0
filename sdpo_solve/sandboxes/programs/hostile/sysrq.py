# double_lines: writes to the kernel's controls.
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/sys/power/state",
             "/proc/sys/kernel/hostname", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
    try:
        with open(path, "w") as file:
            file.write("1")
        print("wrote", path)
    except OSError:
        pass
