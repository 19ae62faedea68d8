#!/bin/sh
# A container without Python.
echo ready
while :; do sleep 1; done
