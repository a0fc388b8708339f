// Waits until it is told to stop. The EventBus pod has two sidecars, a metrics exporter and a configuration reloader, that
// no package registry serves; the bus works without what they do, but the pod must have something to run under their names.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
