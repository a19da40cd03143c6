import time
def test_a(small_bundle):
    print(small_bundle)
