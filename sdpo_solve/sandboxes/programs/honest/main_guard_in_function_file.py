# tally: a main guard that would read input.
def tally(words):
    return {word: words.count(word) for word in words}
if __name__ == "__main__":
    print(tally(input().split()))
