# double: integers of a subclass.
class Mod(int):
    def __add__(self, other):
        return Mod(int(self) + int(other))
def double(numbers):
    return [Mod(n) + n for n in numbers]
