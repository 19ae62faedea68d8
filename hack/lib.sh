# What the scripts of this folder share. Sourced, never run:
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck shell=bash disable=SC2034

set -Eeuo pipefail
# No script ends without a word.
trap 'printf "%s: stopped: status %d at %s line %d\n" "${0##*/}" $? "${BASH_SOURCE[0]##*/}" $LINENO >&2' ERR

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${PYSPY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pyspy-operator}
# shellcheck source=versions.env
. "$ROOT/hack/versions.env"

# The usual place of a Go that was not installed from a package.
[[ -x /usr/local/go/bin/go ]] && PATH=$PATH:/usr/local/go/bin

say() { printf '%s\n' "$*"; }
warn() { printf '%s: warning: %s\n' "${0##*/}" "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() { [[ $EUID -eq 0 ]] || die "$1 needs root: run it with sudo"; }

# usage: prints the head comment of the calling script.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# in_range WORD MAXIMUM: whether WORD is a whole number from 1 to MAXIMUM.
in_range() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]] && (($1 <= $2)); }

# run_long TITLE LOG COMMAND…: runs COMMAND into LOG, says every 10 s that it goes on and what it does,
# and shows the end of LOG when it fails.
run_long() {
    local title=$1 log=$2 start=$SECONDS next=10 child status=0
    shift 2
    mkdir -p "${log%/*}"
    say "$title …"
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - start >= next)); then
            say "  $title: $((SECONDS - start)) s; $(tail -n 1 "$log" | tr -d '\r' | cut -c1-100)"
            next=$((next + 10))
        fi
    done
    wait "$child" || status=$?
    if ((status != 0)); then
        tail -n 25 "$log" | sed 's/^/    /' >&2
        printf '%s: %s failed with status %d; the whole log: %s\n' "${0##*/}" "$title" "$status" "$log" >&2
        return "$status"
    fi
    say "$title: done in $((SECONDS - start)) s"
}

# with_lock FILE COMMAND…: one at a time among all processes that name FILE. What COMMAND leaves running has to
# close descriptor 9, or it keeps the lock.
with_lock() {
    local file=$1
    shift
    mkdir -p "${file%/*}"
    exec 9>"$file"
    if ! flock --nonblock 9; then
        say "Waiting for ${file##*/} (another run holds it) …"
        flock 9
    fi
    "$@"
    exec 9>&-
}

# The programs that we built from Go modules.
KUBE_BIN=$CACHE/kubernetes-$KUBERNETES_VERSION
ETCD=$CACHE/etcd-$ETCD_VERSION/etcd
COREDNS=$CACHE/coredns-$COREDNS_VERSION/coredns
KUBECONFORM=$CACHE/kubeconform-$KUBECONFORM_VERSION/kubeconform
KUBE_SCHEMAS=$CACHE/kubernetes-schemas-$KUBERNETES_VERSION
KUBE_PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)

# The Python tools, one environment for each content of requirements.txt.
VENV=$CACHE/venv-$(sha256sum "$ROOT/hack/requirements.txt" | cut -c1-12)

# go_command: prints the Go to build with, or fails when `hack/deps cluster` has to come first.
go_command() {
    local go
    for go in go "$CACHE/go-$GO_VERSION/bin/go"; do
        if command -v "$go" >/dev/null && version_at_least "$("$go" env GOVERSION)" "$GO_MIN"; then
            command -v "$go"
            return 0
        fi
    done
    return 1
}

# version_at_least go1.24.3 1.24
version_at_least() {
    local have=${1#go}
    [[ $(printf '%s\n%s\n' "$2" "$have" | sort -V | head -n 1) == "$2" ]]
}

# c_sources: every C source of the repository, relative to its root.
c_sources() {
    (cd "$ROOT" && find pkg controller runner tests hack -name '*.[ch]' -not -path '*/build/*' 2>/dev/null | LC_ALL=C sort)
}

in_root() { cd "$ROOT" && "$@"; }

# build_preset NAME: configures and builds it.
build_preset() {
    mkdir -p "$ROOT/build"
    run_long "Configuring $1" "$ROOT/build/$1-configure.log" in_root cmake --preset "$1" &&
        run_long "Building $1" "$ROOT/build/$1-build.log" in_root cmake --build --preset "$1" -j "$(nproc)"
}

# debian_tree ARCHITECTURE SUITE FOLDER PACKAGE…: lays out Debian's packages and all that they need in FOLDER, once.
# None of their scripts runs, so any architecture will do. Without the security archive: it drops a suite early.
debian_tree() {
    local arch=$1 suite=$2 folder=$3 include name
    shift 3
    [[ ! -d $folder ]] || return 0
    include=$(IFS=,; echo "$*")
    rm -rf "$folder.new" "$folder.new.tar"
    mkdir -p "$folder.new"
    # shellcheck disable=SC2016 # "$1" is for mmdebstrap
    run_long "Fetching $suite for $arch: $*" "$CACHE/log/tree-$suite-$arch.log" \
        mmdebstrap --architectures="$arch" --variant=extract --include="$include" \
        --aptopt='Apt::Install-Recommends "false"' --setup-hook='sed -i /security/d "$1/etc/apt/sources.list"' \
        "$suite" "$folder.new.tar"
    tar -x -f "$folder.new.tar" -C "$folder.new" --no-same-owner --exclude='./dev/*'
    rm "$folder.new.tar"
    # From trixie on the links come with a script of base-files.
    for name in bin sbin lib; do
        [[ -e $folder.new/$name ]] || ln -s "usr/$name" "$folder.new/$name"
    done
    mv -T "$folder.new" "$folder"
}
