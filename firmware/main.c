// SPDX-License-Identifier: BSD-2-Clause
// Entry of the bare-metal firmware, after LiteX's crt0.
#include "server.h"

int main(void)
{
	server_init();
	server_run();
	return 0;
}
