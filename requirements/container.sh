#!/bin/sh
# The image's entry point: warn of folders that no volume keeps, then run the command.
#   sh requirements/container.sh COMMAND...
# MOUNTS names another list of mounts than this process's, for the tests.

lost=""
for folder in notebooks workspace; do
  grep -qs "^[^ ]* [^ ]* [^ ]* [^ ]* /course/$folder " "${MOUNTS:-/proc/self/mountinfo}" \
    || lost="$lost -v multistage-$folder:/course/$folder"
done
[ -z "$lost" ] || echo "Warning: these folders have no volume, and what you write there is deleted with this" \
  "container. To keep it: docker run$lost …" >&2
exec "$@"
