#!/bin/bash
# The first process of the guest, twice: first on the host's file system, which
# is read-only, then on a writable overlay of it. UML_DIR is the guest's
# directory on the host, UML_MODULES that of the kernel's modules.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
if [ -z "${UML_STAGE:-}" ]; then
	mount -n -t proc proc /proc
	insmod "$UML_MODULES/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
	mount -n -t tmpfs tmpfs /mnt
	mkdir /mnt/upper /mnt/work /mnt/root
	mount -n -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
	cd /mnt/root && mkdir -p old jobs lib/modules proc sys dev run tmp
	ln -sfn "$UML_MODULES/$(uname -r)" "lib/modules/$(uname -r)"
	mount -n -t hostfs -o "$UML_DIR/jobs" none jobs
	umount -n -l /proc
	pivot_root . old
	UML_STAGE=2 exec chroot . /bin/bash "/old$UML_DIR/init.sh"
fi
cd /
mount -n -t proc proc /proc
mount -n -t sysfs sysfs /sys
mount -n -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -n -t devpts -o ptmxmode=666 devpts /dev/pts
for dir in /dev/shm /run /tmp; do mount -n -t tmpfs -o mode=1777 tmpfs $dir; done
mkdir -p /run/lock /run/frr && chown frr:frr /run/frr 2>/dev/null
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
for module in ipv6 8021q vrf macsec gcm ghash-generic; do modprobe -q $module; done
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
for vec in /sys/class/net/vec*; do
	dev=eth${vec##*vec}
	ip link set "${vec##*/}" name "$dev" && ip link set "$dev" up
done

# Jobs: their numbers come over the serial line, their scripts and results are
# files. The line is held open, as what comes while nobody has it is lost.
exec 5<>/dev/ttyS0
stty -echo <&5
job() {
	setsid bash "/jobs/$1.sh" 5<&- </dev/null >"/jobs/$1.out" 2>&1
	echo $? >"/jobs/$1.tmp" && mv "/jobs/$1.tmp" "/jobs/$1.status"
}
: >/jobs/ready
while read -r n <&5; do
	if [ "$n" = off ]; then
		echo o >/proc/sysrq-trigger
		sleep 10
	fi
	job "$n" &
done
