// SPDX-License-Identifier: BSD-2-Clause
// main() of the simulated SoC: clock, DRAM contents, and the UART as a TCP socket.
//
// The words of the DRAM live here, in one lazily touched mapping, so that firmware and model image are read at start
// and changing them compiles nothing. The UART is a listening socket on loopback, on a port of the system's choice, with
// back-pressure both ways: what is printed waits until a client reads it.
//
// +firmware=FILE        to the start of the DRAM
// +image=FILE           to +image_offset=BYTES of it
// +rx_gap=CYCLES        at least so many between two characters to the SoC (default 100)
// +max_cycles=CYCLES    stop by itself
// +control              obey standard input: 'p' pause until the next character, 'q' or its end (our parent died) stop
//
// Prints "uart socket://127.0.0.1:PORT" once it runs and "stopped CYCLES cycles SECONDS seconds" (of CPU time) when it ends.
// SIM_DRAM_BYTES, SIM_WORD_BYTES and SIM_READ_LATENCY are given by the compiler's command line (sim.py).

#include "Vsim.h"
#include "verilated.h"

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static constexpr unsigned SERVICE_CYCLES = 1024;   // Between two looks at the host: 1-2 ms.
static constexpr size_t   UART_BYTES     = 65536;  // Held for a slow or absent client before the SoC has to wait.

static volatile sig_atomic_t stop;

double sc_time_stamp() { return 0; }

[[noreturn]] static void fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("error: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	exit(2);
}

// CPU time: neither pauses nor a busy machine count.
static double cpu_seconds()
{
	timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec*1e-9;
}

// Plus arguments -----------------------------------------------------------------------------------

static const char *text_argument(int argc, char **argv, const char *name)
{
	size_t length = strlen(name);
	for (int i = 1; i < argc; i++)
		if (argv[i][0] == '+' && !strncmp(argv[i] + 1, name, length) && argv[i][1 + length] == '=')
			return argv[i] + length + 2;
	return nullptr;
}

static uint64_t number_argument(int argc, char **argv, const char *name, uint64_t otherwise)
{
	const char *text = text_argument(argc, argv, name);
	return text ? strtoull(text, nullptr, 0) : otherwise;
}

// DRAM ---------------------------------------------------------------------------------------------

// LinearDRAMPHY's memory: answers a read SIM_READ_LATENCY cycles later, with the word as it was when asked.
class Dram {
public:
	Dram()
	{
		void *p = mmap(nullptr, SIM_DRAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED)
			fail("cannot map %llu bytes of DRAM: %s", (unsigned long long)SIM_DRAM_BYTES, strerror(errno));
		bytes = static_cast<uint8_t *>(p);
	}

	void load(const char *name, uint64_t offset)
	{
		struct stat status;
		int fd = open(name, O_RDONLY);
		if (fd < 0 || fstat(fd, &status))
			fail("cannot read %s: %s", name, strerror(errno));
		uint64_t size = status.st_size;
		if (offset > SIM_DRAM_BYTES || size > SIM_DRAM_BYTES - offset)
			fail("%s has %llu bytes, the DRAM's %llu have no room for them at %llu", name, (unsigned long long)size,
				(unsigned long long)SIM_DRAM_BYTES, (unsigned long long)offset);
		for (uint64_t done = 0; done < size;) {
			ssize_t n = read(fd, bytes + offset + done, size - done);
			if (n <= 0)
				fail("cannot read %s: %s", name, n ? strerror(errno) : "it became shorter");
			done += n;
		}
		close(fd);
	}

	// Before the edge: what the settled design asks for in this cycle. Read before write.
	void sample(const Vsim &top)
	{
		if (top.dram_re)
			memcpy(ring[now], bytes + uint64_t(top.dram_radr)*SIM_WORD_BYTES, SIM_WORD_BYTES);
		if (top.dram_we) {
			const uint8_t *data = reinterpret_cast<const uint8_t *>(&top.dram_wdata);
			uint8_t       *word = bytes + uint64_t(top.dram_wadr)*SIM_WORD_BYTES;
			uint64_t       mask = top.dram_wmask;
			for (unsigned i = 0; i < SIM_WORD_BYTES; i++)
				if (!(mask >> i & 1))
					word[i] = data[i];
		}
	}

	// After the edge: the word that was asked for SIM_READ_LATENCY cycles before the cycle that begins.
	void drive(Vsim &top)
	{
		now = now == SIM_READ_LATENCY - 1 ? 0 : now + 1;
		memcpy(&top.dram_rdata, ring[now], SIM_WORD_BYTES);
	}

private:
	uint8_t *bytes;
	unsigned now = 0;
	uint8_t  ring[SIM_READ_LATENCY][SIM_WORD_BYTES] = {};
};

// UART ---------------------------------------------------------------------------------------------

class Uart {
public:
	explicit Uart(uint64_t gap) : gap(gap)
	{
		sockaddr_in address{};
		socklen_t   length = sizeof address;
		address.sin_family      = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (listener < 0 || bind(listener, reinterpret_cast<sockaddr *>(&address), length) || listen(listener, 1)
			|| getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length))
			fail("cannot listen on loopback: %s", strerror(errno));
		printf("uart socket://127.0.0.1:%u\n", ntohs(address.sin_port));
		fflush(stdout);
	}

	// Every cycle, after the edge; the design reads these inputs at the next one.
	void cycle(Vsim &top, uint64_t cycles)
	{
		if (top.serial_sink_valid && accepted)
			top.serial_sink_valid = 0;
		if (!top.serial_sink_valid && received < input.size() && cycles >= next) {
			top.serial_sink_data  = input[received++];
			top.serial_sink_valid = 1;
			next = cycles + gap;
		}
	}

	// Before the edge: transfers of this cycle.
	void sample(const Vsim &top)
	{
		accepted = top.serial_sink_ready;
		if (top.serial_source_valid && top.serial_source_ready)
			output.push_back(top.serial_source_data);
	}

	// Now and then: what the client has for us and we for it. One client at a time; a new one waits for the old to leave.
	void service(Vsim &top)
	{
		if (client < 0)
			connect();
		if (client >= 0)
			send_output();
		if (client >= 0 && received == input.size())
			receive_input();
		top.serial_source_ready = output.size() < UART_BYTES;
	}

private:
	void connect()
	{
		client = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
		int one = 1;
		if (client >= 0)
			setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	}

	void disconnect()
	{
		close(client);
		client = -1;
	}

	void send_output()
	{
		if (output.empty())
			return;
		ssize_t n = send(client, output.data(), output.size(), MSG_NOSIGNAL);
		if (n > 0)
			output.erase(0, n);
		else if (errno != EAGAIN && errno != EINTR)
			disconnect();
	}

	void receive_input()
	{
		char    buffer[4096];
		ssize_t n = recv(client, buffer, sizeof buffer, 0);
		if (n > 0) {
			input.assign(buffer, n);
			received = 0;
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			disconnect();
		}
	}

	uint64_t    gap, next = 0;
	int         listener, client = -1;
	bool        accepted = false;
	std::string output, input;
	size_t      received = 0;
};

// Control ------------------------------------------------------------------------------------------

// Obeys standard input. Its end stops us: the parent that holds the other end is gone, however it went.
static void obey()
{
	pollfd p{STDIN_FILENO, POLLIN, 0};
	bool   paused = false;
	while (!stop && poll(&p, 1, paused ? -1 : 0) > 0) {
		char command = 'q';
		if (read(STDIN_FILENO, &command, 1) <= 0 || command == 'q')
			stop = 1;
		paused = command == 'p';
	}
}

int main(int argc, char **argv)
{
	Verilated::commandArgs(argc, argv);
	uint64_t max_cycles = number_argument(argc, argv, "max_cycles", UINT64_MAX);
	bool     control    = *Verilated::commandArgsPlusMatch("control");
	auto     on_signal  = [](int) { stop = 1; };
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);

	static Dram dram;
	if (const char *name = text_argument(argc, argv, "firmware"))
		dram.load(name, 0);
	if (const char *name = text_argument(argc, argv, "image"))
		dram.load(name, number_argument(argc, argv, "image_offset", 0));
	Uart   uart(number_argument(argc, argv, "rx_gap", 100));
	Vsim  &top    = *new Vsim;
	double start  = cpu_seconds();
	uint64_t cycles = 0;
	top.serial_sink_valid = 0;
	while (!stop && cycles < max_cycles) {
		if (cycles % SERVICE_CYCLES == 0) {
			uart.service(top);
			if (control)
				obey();
			if (Verilated::gotFinish())
				stop = 1;
		}
		top.sys_clk = 0;
		top.eval();
		dram.sample(top);
		uart.sample(top);
		top.sys_clk = 1;
		top.eval();
		dram.drive(top);
		uart.cycle(top, ++cycles);
	}
	uart.service(top);
	printf("stopped %llu cycles %.3f seconds\n", (unsigned long long)cycles, cpu_seconds() - start);
	fflush(stdout);
	return 0;
}
