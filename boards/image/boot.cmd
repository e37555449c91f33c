# What U-Boot does with an image, from boot.scr of its boot partition: `slot` of pointer.env says whose kernel is started, and that of
# once.env, for this one start, when it is there and can be removed. What does not start, starts again.
setenv slot a
if load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} pointer.env; then
    env import -t ${kernel_addr_r} ${filesize} slot
fi
if test -e ${devtype} ${devnum}:${distro_bootpart} once.env; then
    load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} once.env
    setenv length ${filesize}
    if fatrm ${devtype} ${devnum}:${distro_bootpart} once.env; then
        env import -t ${kernel_addr_r} ${length} slot
    fi
fi
load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} ${slot}/words
env import -t ${kernel_addr_r} ${filesize} words
if test -e ${devtype} ${devnum}:${distro_bootpart} ${slot}/board.dtb; then
    load ${devtype} ${devnum}:${distro_bootpart} ${fdt_addr_r} ${slot}/board.dtb
    setenv tree ${fdt_addr_r}
elif test -n "${fdt_addr}"; then
    setenv tree ${fdt_addr}
else
    setenv tree ${fdtcontroladdr}
fi
setenv bootargs "${words} mote.slot=${slot}"
load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} ${slot}/vmlinuz
load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} ${slot}/initrd
booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${tree}
echo "mote: the kernel of slot ${slot} does not start"
sleep 5
reset
