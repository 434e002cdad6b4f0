# double_lines: asyncio, which needs a pair of sockets for itself.
import asyncio, sys
async def main():
    await asyncio.sleep(0)
    n, *numbers = map(int, sys.stdin.read().split())
    print("\n".join(str(2 * x) for x in numbers))
asyncio.run(main())
