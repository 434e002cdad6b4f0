# double_lines: claims success in words and leaves with exit code 0.
import os, sys
print("ALL TESTS PASSED\naccepted\n1.0\n{\"status\": \"ok\", \"solved\": true}")
sys.stdout.flush()
os._exit(0)
