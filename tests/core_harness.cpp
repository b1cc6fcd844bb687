// SPDX-License-Identifier: BSD-2-Clause
// The core alone, Verilated, behind one native DRAM port modelled here: driven from Python through ctypes.
// SIGNALS (generated) lists X(index, name) for every 1..32-bit port of the core that Python may set or read.
#include "Vcore.h"
#include "signals.h"
#include "verilated.h"
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

double sc_time_stamp() { return 0; }

struct Harness {
    Vcore                top;
    std::vector<uint8_t> memory;
    std::deque<uint64_t> due;            // Cycle at which each outstanding read is answered.
    std::deque<uint64_t> address;
    std::deque<std::pair<uint64_t, uint64_t>> writes;   // Address and due cycle of each write whose data is still to come.
    uint64_t             cycle = 0, random = 88172645463325252ull;
    unsigned             latency = 20, stall_256 = 0;   // stall_256: chance in 256 that the port holds a cycle.

    unsigned chance()
    {
        random ^= random << 13; random ^= random >> 7; random ^= random << 17;
        return random & 255;
    }
    void step()
    {
        bool hold = chance() < stall_256;
        top.port_cmd_ready   = !hold && due.size() < 64;
        bool answer          = !due.empty() && due.front() <= cycle && chance() >= stall_256;
        top.port_rdata_valid = answer;
        if (answer) {
            size_t at = address.front()*PORT_BYTES;
            if (at + PORT_BYTES <= memory.size()) memcpy(&top.port_rdata_data, &memory[at], PORT_BYTES);
            else memset(&top.port_rdata_data, 0xA5, PORT_BYTES);
        }
        top.wport_cmd_ready   = chance() >= stall_256 && writes.size() < 16;
        top.wport_wdata_ready = !writes.empty() && writes.front().second <= cycle;
        top.sys_clk = 0; top.eval();
        if (top.wport_wdata_ready) {
            // The controller takes the data when it wants it, ready or not.
            size_t at = writes.front().first*PORT_BYTES;
            if (!top.wport_wdata_valid) abort();
            if (at + PORT_BYTES > memory.size()) memory.resize(at + PORT_BYTES);
            for (int i = 0; i < PORT_BYTES; i++)
                if (top.wport_wdata_we >> i & 1) memory[at + i] = ((const uint8_t *)&top.wport_wdata_data)[i];
            writes.pop_front();
        }
        // (Its data is there before any read that is asked for later is answered.)
        if (top.wport_cmd_valid && top.wport_cmd_ready) writes.push_back({top.wport_cmd_addr, cycle + latency/4});
        if (top.port_cmd_valid && top.port_cmd_ready) { due.push_back(cycle + latency); address.push_back(top.port_cmd_addr); }
        if (answer && top.port_rdata_ready) { due.pop_front(); address.pop_front(); }
        top.sys_clk = 1; top.eval();
        cycle++;
    }
};

extern "C" {
Harness *core_new(unsigned latency, unsigned stall_256)
{
    Harness *h = new Harness; h->latency = latency; h->stall_256 = stall_256;
    h->top.sys_rst = 1; for (int i = 0; i < 4; i++) h->step();
    h->top.sys_rst = 0; for (int i = 0; i < 4; i++) h->step();
    return h;
}
void core_delete(Harness *h) { delete h; }
void core_load(Harness *h, const uint8_t *data, size_t n) { h->memory.assign(data, data + n); }
void core_read(Harness *h, size_t at, size_t n, uint8_t *out) { for (size_t i = 0; i < n; i++) out[i] = at + i < h->memory.size() ? h->memory[at + i] : 0; }
void core_write(Harness *h, size_t at, size_t n, const uint8_t *data) { if (at + n > h->memory.size()) h->memory.resize(at + n); memcpy(&h->memory[at], data, n); }
void core_set(Harness *h, int index, uint32_t value)
{
    switch (index) {
#define X(i, name) case i: h->top.name = value; break;
    SIGNALS
#undef X
    }
}
uint32_t core_get(Harness *h, int index)
{
    h->top.eval();
    switch (index) {
#define X(i, name) case i: return h->top.name;
    SIGNALS
#undef X
    }
    return 0;
}
void core_steps(Harness *h, unsigned n) { while (n--) h->step(); }
// Step until signal `index` equals `value` (sampled after each clock); cycles taken, or -1 after `limit`.
int64_t core_until(Harness *h, int index, uint32_t value, uint64_t limit)
{
    for (uint64_t n = 1; n <= limit; n++) { h->step(); if (core_get(h, index) == value) return n; }
    return -1;
}
}
