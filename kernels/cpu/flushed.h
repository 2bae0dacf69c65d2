// Numbers below the smallest normal one count as zero in a thread while this lives, as they do on a GPU.
//
// Gradients over long sequences fade into them, and each costs the processor some hundred cycles.  The setting of the
// thread is so again afterward.
#ifndef GPULSTM_CPU_FLUSHED_H
#define GPULSTM_CPU_FLUSHED_H

namespace gpulstm {

class Flushed {
#if defined(__x86_64__)
    static constexpr unsigned ZERO = 0x8040;  // results to zero, operands as zero
    const unsigned before = __builtin_ia32_stmxcsr();

  public:
    Flushed() { __builtin_ia32_ldmxcsr(before | ZERO); }
    ~Flushed() { __builtin_ia32_ldmxcsr(before); }
#elif defined(__aarch64__)
    static constexpr unsigned long ZERO = 1ul << 24;  // FPCR.FZ
    unsigned long before;

  public:
    Flushed() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        asm volatile("msr fpcr, %0" : : "r"(before | ZERO));
    }
    ~Flushed() { asm volatile("msr fpcr, %0" : : "r"(before)); }
#else
  public:
    Flushed() {}
    ~Flushed() {}
#endif
    Flushed(const Flushed&) = delete;
    Flushed& operator=(const Flushed&) = delete;
};

}  // namespace gpulstm

#endif
