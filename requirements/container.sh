#!/bin/sh
# The image's entry point: say which work would end with the container, then do what is asked for.
#   sh requirements/container.sh COMMAND...
# MOUNTS names another list of mounts than this process's, for the tests.

lost=""
for folder in notebooks workspace; do
  grep -q " /course/$folder " "${MOUNTS:-/proc/self/mountinfo}" \
    || lost="$lost -v multistage-$folder:/course/$folder"
done
[ -z "$lost" ] || echo "Warning: what you write ends with this container. To keep it: docker run$lost …" >&2
exec "$@"
