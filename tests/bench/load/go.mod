module pyspy.dev/tests/bench/load

go 1.24.0
