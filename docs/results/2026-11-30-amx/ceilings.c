// What one core can do: products in registers (AVX-512 and AMX), and memory by size. Processor time, the best of nine.
// gcc -O3 -funroll-loops -march=sapphirerapids -o ceilings ceilings.c && taskset -c 1 ./ceilings
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
static double now(){struct timespec t;clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&t);return t.tv_sec+t.tv_nsec*1e-9;}
#define BEST(expr,work,unit,name) do{double best=1e9;for(int r=0;r<9;r++){double t0_=now();expr;double e=now()-t0_;if(e<best)best=e;}printf("%-34s %9.1f %s\n",name,(work)/best/1e9,unit);}while(0)
static volatile float sink;
__attribute__((noinline)) static void fma32(long n){__m512 a=_mm512_set1_ps(1.0001f),b=_mm512_set1_ps(0.5f);__m512 c[12];for(int i=0;i<12;i++)c[i]=_mm512_set1_ps(i);
 for(long k=0;k<n;k++){for(int i=0;i<12;i++)c[i]=_mm512_fmadd_ps(a,c[i],b);} for(int i=1;i<12;i++)c[0]=_mm512_add_ps(c[0],c[i]);sink=_mm512_reduce_add_ps(c[0]);}
__attribute__((noinline)) static void dpbf(long n){__m512bh a=(__m512bh)_mm512_set1_epi16(0x3f80),b=a;__m512 c[12];for(int i=0;i<12;i++)c[i]=_mm512_set1_ps(i);
 for(long k=0;k<n;k++){for(int i=0;i<12;i++){c[i]=_mm512_dpbf16_ps(c[i],a,b);} } for(int i=1;i<12;i++)c[0]=_mm512_add_ps(c[0],c[i]);sink=_mm512_reduce_add_ps(c[0]);}
__attribute__((noinline)) static void dp8(long n){__m512i a=_mm512_set1_epi8(1),b=_mm512_set1_epi8(2);__m512i c[12];for(int i=0;i<12;i++)c[i]=_mm512_set1_epi32(i);
 for(long k=0;k<n;k++){for(int i=0;i<12;i++)c[i]=_mm512_dpbusd_epi32(c[i],a,b);} for(int i=1;i<12;i++)c[0]=_mm512_add_epi32(c[0],c[i]);sink=_mm512_reduce_add_epi32(c[0]);}
__attribute__((noinline)) static void h16(long n){__m512h a=_mm512_set1_ph(1.0f16),b=a;__m512h c[12];for(int i=0;i<12;i++)c[i]=a;
 for(long k=0;k<n;k++){for(int i=0;i<12;i++)c[i]=_mm512_fmadd_ph(a,c[i],b);} for(int i=1;i<12;i++)c[0]=_mm512_add_ph(c[0],c[i]);sink=_mm512_reduce_add_ph(c[0]);}
struct cfg{unsigned char palette,row;unsigned char r[14];unsigned short cols[16];unsigned char rows[16];}__attribute__((packed));
static char tile[1024]__attribute__((aligned(64)));
static void conf(){struct cfg c;memset(&c,0,sizeof c);c.palette=1;for(int i=0;i<8;i++){c.cols[i]=64;c.rows[i]=16;}_tile_loadconfig(&c);}
__attribute__((noinline)) static void amxbf(long n){for(long k=0;k<n;k++){_tile_dpbf16ps(0,4,6);_tile_dpbf16ps(1,4,7);_tile_dpbf16ps(2,5,6);_tile_dpbf16ps(3,5,7);}}
__attribute__((noinline)) static void amx8(long n){for(long k=0;k<n;k++){_tile_dpbssd(0,4,6);_tile_dpbssd(1,4,7);_tile_dpbssd(2,5,6);_tile_dpbssd(3,5,7);}}
__attribute__((noinline)) static float rd(const float*p,size_t n){__m512 a=_mm512_setzero_ps(),b=a,c=a,d=a;for(size_t i=0;i<n;i+=64){a=_mm512_add_ps(a,_mm512_loadu_ps(p+i));b=_mm512_add_ps(b,_mm512_loadu_ps(p+i+16));c=_mm512_add_ps(c,_mm512_loadu_ps(p+i+32));d=_mm512_add_ps(d,_mm512_loadu_ps(p+i+48));}return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a,b),_mm512_add_ps(c,d)));}
int main(){long n=4000000;
 fma32(n);
 BEST(fma32(n),2.0*16*12*n,"GFLOP/s","fp32 FMA, AVX-512");
 BEST(h16(n),2.0*32*12*n,"GFLOP/s","fp16 FMA, AVX-512");
 BEST(dpbf(n),4.0*16*12*n,"GFLOP/s","bf16 VDPBF16PS, AVX-512");
 BEST(dp8(n),8.0*16*12*n,"GOP/s","int8 VPDPBUSD, AVX-512 VNNI");
 if(syscall(SYS_arch_prctl,0x1023,18)==0){conf();for(int i=0;i<1;i++){_tile_zero(0);_tile_zero(1);_tile_zero(2);_tile_zero(3);_tile_loadd(4,tile,64);_tile_loadd(5,tile,64);_tile_loadd(6,tile,64);_tile_loadd(7,tile,64);}
 long m=400000;BEST(amxbf(m),4.0*2*16*16*32*m,"GFLOP/s","bf16 TDPBF16PS, AMX");BEST(amx8(m),4.0*2*16*16*64*m,"GOP/s","int8 TDPBSSD, AMX");_tile_release();}
 size_t sizes[]={32<<10,1<<20,6<<20,16<<20,64<<20,256<<20};
 float*a=aligned_alloc(4096,256<<20),*b=aligned_alloc(4096,256<<20);memset(a,0,256<<20);memset(b,0,256<<20);
 for(int i=0;i<6;i++){size_t s=sizes[i];int reps=(int)((256u<<20)/s);char nm[64];sprintf(nm,"read %zu kB",s>>10);
  BEST(for(int k=0;k<reps;k++){sink+=rd(a,s/4);__asm__ volatile("":::"memory");},(double)s*reps,"GB/s",nm);
  sprintf(nm,"copy %zu kB (read + written)",s>>10);BEST(for(int k=0;k<reps;k++){memcpy(b,a,s);__asm__ volatile(""::"r"(b):"memory");},2.0*s*reps,"GB/s",nm);}
 return 0;}
