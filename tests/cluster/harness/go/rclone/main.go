// rclone with what an S3 endpoint for tests needs: the local backend and `serve`. All backends would take minutes to compile.
package main

import (
	_ "github.com/rclone/rclone/backend/local"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/serve"
)

func main() { cmd.Main() }
