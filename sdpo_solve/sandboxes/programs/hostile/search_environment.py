# double_lines: prints what the environment and the command line tell.
import os, sys
print(os.environ, sys.argv, sys.orig_argv, sys.path)
