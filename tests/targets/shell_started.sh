#!/bin/sh
# Python started by a shell that stays its parent, as many images do.
sh -c 'python3 /targets/busy_threads.py; echo "ended with status $?"'
