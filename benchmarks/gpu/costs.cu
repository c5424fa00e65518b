// Kernels that cost nothing but what is to be measured: launches, and barriers of a block, a cluster and a grid.

extern "C" {

__global__ void empty() {}

// Something small that needs what the kernel before it wrote.
__global__ void small(float *x) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = 0.5f * x[i] + 1.0f;
}

// Holds the stream for so many nanoseconds, while the host queues what is to be timed behind it.
__global__ void hold(long long nanoseconds) {
    unsigned long long begun, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begun));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begun < (unsigned long long)nanoseconds);
}

__global__ void block_barrier(int rounds) {
    for (int k = 0; k < rounds; ++k)
        asm volatile("bar.sync 0;" ::: "memory");
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTER(N)                                                                                                     \
    __global__ void __cluster_dims__(N, 1, 1) cluster_barrier_##N(int rounds) {                                        \
        for (int k = 0; k < rounds; ++k) {                                                                             \
            asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");                                              \
            asm volatile("barrier.cluster.wait.aligned;" ::: "memory");                                                \
        }                                                                                                              \
    }
CLUSTER(2)
CLUSTER(4)
CLUSTER(8)
CLUSTER(16)
#endif

// A counter that only grows, in the memory of the device. A block that waits for too long says so and gives up: blocks
// that do not all run at once would wait for ever.
__global__ void grid_barrier(unsigned *arrived, int rounds, int *failed) {
    __shared__ int given_up;
    if (threadIdx.x == 0)
        given_up = 0;
    __syncthreads();
    for (int k = 0; k < rounds; ++k) {
        __syncthreads();
        if (threadIdx.x == 0) {
            const unsigned wanted = (unsigned)(k + 1) * gridDim.x;
            unsigned now;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
            for (int patience = 1 << 20;;) {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(arrived) : "memory");
                if (now >= wanted)
                    break;
                if (--patience == 0) {
                    given_up = *failed = 1;
                    break;
                }
            }
        }
        __syncthreads();
        if (given_up)
            return;
    }
}
}
