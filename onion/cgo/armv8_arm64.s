//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// Offsets of the last eight powers and of the last, H.
#define POWER8 (hashKey_powers+128)
#define POWER1 (hashKey_powers+240)

// One round key from the one in V0, with rcon in V2, the bytes of RotWord of
// the last word in V1, and zero in V31. AESE with a zero key is SubBytes here,
// because all columns are equal.
#define EXPAND(i) \
	VTBL V1.B16, [V0.B16], V3.B16; \
	AESE V31.B16, V3.B16; \
	VEOR V2.B16, V3.B16, V3.B16; \
	VSHL $1, V2.S4, V2.S4; \
	VEXT $12, V0.B16, V31.B16, V4.B16; \
	VEOR V4.B16, V0.B16, V0.B16; \
	VEXT $8, V0.B16, V31.B16, V4.B16; \
	VEOR V4.B16, V0.B16, V0.B16; \
	VEOR V3.B16, V0.B16, V0.B16; \
	FMOVQ F0, (16*i)(R0)

#define INVERT(i) \
	AESIMC V0.B16, V3.B16; \
	FMOVQ F3, (aesKey_dec+160-16*i)(R0)

// func expandAESE(ks *aesKey, key *block)
TEXT ·expandAESE(SB), NOSPLIT, $0-16
	MOVD ks+0(FP), R0
	MOVD key+8(FP), R1
	FMOVQ (R1), F0
	MOVD $0x0c0f0e0d0c0f0e0d, R2
	VDUP R2, V1.D2
	MOVD $1, R2
	VDUP R2, V2.S4
	VEOR V31.B16, V31.B16, V31.B16
	FMOVQ F0, (R0)
	FMOVQ F0, (aesKey_dec+160)(R0)
	EXPAND(1)
	INVERT(1)
	EXPAND(2)
	INVERT(2)
	EXPAND(3)
	INVERT(3)
	EXPAND(4)
	INVERT(4)
	EXPAND(5)
	INVERT(5)
	EXPAND(6)
	INVERT(6)
	EXPAND(7)
	INVERT(7)
	EXPAND(8)
	INVERT(8)
	MOVD $0x1b, R2 // x^8 in the field of AES
	VDUP R2, V2.S4
	EXPAND(9)
	INVERT(9)
	EXPAND(10)
	FMOVQ F0, aesKey_dec(R0)
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V3.B16, V3.B16, V3.B16
	VEOR V4.B16, V4.B16, V4.B16
	RET

// Loads the eleven round keys at R0 into V16 to V26; changes R0.
#define LOADKEYS \
	VLD1.P 64(R0), [V16.B16, V17.B16, V18.B16, V19.B16]; \
	VLD1.P 64(R0), [V20.B16, V21.B16, V22.B16, V23.B16]; \
	VLD1 (R0), [V24.B16, V25.B16, V26.B16]

#define ENCROUND(k, x) \
	AESE k, x; \
	AESMC x, x

#define DECROUND(k, x) \
	AESD k, x; \
	AESIMC x, x

// func encryptAESE(ks *aesKey, x, mask *block)
TEXT ·encryptAESE(SB), NOSPLIT, $0-24
	MOVD ks+0(FP), R0
	MOVD x+8(FP), R1
	MOVD mask+16(FP), R2
	LOADKEYS
	FMOVQ (R1), F0
	FMOVQ (R2), F1
	VEOR V1.B16, V0.B16, V0.B16
	ENCROUND(V16.B16, V0.B16)
	ENCROUND(V17.B16, V0.B16)
	ENCROUND(V18.B16, V0.B16)
	ENCROUND(V19.B16, V0.B16)
	ENCROUND(V20.B16, V0.B16)
	ENCROUND(V21.B16, V0.B16)
	ENCROUND(V22.B16, V0.B16)
	ENCROUND(V23.B16, V0.B16)
	ENCROUND(V24.B16, V0.B16)
	AESE V25.B16, V0.B16
	VEOR V26.B16, V0.B16, V0.B16
	VEOR V1.B16, V0.B16, V0.B16
	FMOVQ F0, (R1)
	RET

// func decryptAESD(ks *aesKey, x, mask *block)
TEXT ·decryptAESD(SB), NOSPLIT, $0-24
	MOVD ks+0(FP), R0
	MOVD x+8(FP), R1
	MOVD mask+16(FP), R2
	ADD $aesKey_dec, R0
	LOADKEYS
	FMOVQ (R1), F0
	FMOVQ (R2), F1
	VEOR V1.B16, V0.B16, V0.B16
	DECROUND(V16.B16, V0.B16)
	DECROUND(V17.B16, V0.B16)
	DECROUND(V18.B16, V0.B16)
	DECROUND(V19.B16, V0.B16)
	DECROUND(V20.B16, V0.B16)
	DECROUND(V21.B16, V0.B16)
	DECROUND(V22.B16, V0.B16)
	DECROUND(V23.B16, V0.B16)
	DECROUND(V24.B16, V0.B16)
	AESD V25.B16, V0.B16
	VEOR V26.B16, V0.B16, V0.B16
	VEOR V1.B16, V0.B16, V0.B16
	FMOVQ F0, (R1)
	RET

// Accumulators of unreduced products: V16 low, V17 middle (Karatsuba's), V18
// high. V19 is x^63 + x^62 + x^57 in the low half.

#define CLEAR \
	VEOR V16.B16, V16.B16, V16.B16; \
	VEOR V17.B16, V17.B16, V17.B16; \
	VEOR V18.B16, V18.B16, V18.B16

#define POLY \
	VEOR V19.B16, V19.B16, V19.B16; \
	MOVD $0xc200000000000000, R7; \
	VMOV R7, V19.D[0]

// Adds the product of the block in V0 and a power, of which h1 and h2 are the
// low and the high half. pmull multiplies mid, the sum of the halves, by sum:
// V1 in the same arrangement.
#define ACCUMULATE(h1, h2, pmull, mid, sum) \
	VEXT $8, V0.B16, V0.B16, V1.B16; \
	VEOR V0.B16, V1.B16, V1.B16; \
	VPMULL h1, V0.D1, V2.Q1; \
	VPMULL2 h2, V0.D2, V3.Q1; \
	pmull mid, sum, V4.Q1; \
	VEOR V2.B16, V16.B16, V16.B16; \
	VEOR V3.B16, V18.B16, V18.B16; \
	VEOR V4.B16, V17.B16, V17.B16

// The same for the power in V5.
#define ACCUMULATE1 \
	VEXT $8, V5.B16, V5.B16, V6.B16; \
	VEOR V5.B16, V6.B16, V6.B16; \
	ACCUMULATE(V5.D1, V5.D2, VPMULL, V6.D1, V1.D1)

// The same for a power whose sum of halves is the low or the high half of a
// register.
#define LOWMID(h1, h2, mid) ACCUMULATE(h1, h2, VPMULL, mid, V1.D1)
#define HIGHMID(h1, h2, mid) ACCUMULATE(h1, h2, VPMULL2, mid, V1.D2)

// Reduces the accumulators to the element V7. V31 is zero.
#define REDUCE \
	VEOR V16.B16, V17.B16, V17.B16; \
	VEOR V18.B16, V17.B16, V17.B16; \
	VEXT $8, V17.B16, V31.B16, V1.B16; \
	VEXT $8, V31.B16, V17.B16, V2.B16; \
	VEOR V1.B16, V16.B16, V16.B16; \
	VEOR V2.B16, V18.B16, V18.B16; \
	VPMULL V19.D1, V16.D1, V1.Q1; \
	VEXT $8, V16.B16, V16.B16, V2.B16; \
	VEOR V1.B16, V2.B16, V2.B16; \
	VPMULL V19.D1, V2.D1, V1.Q1; \
	VEXT $8, V2.B16, V2.B16, V7.B16; \
	VEOR V18.B16, V1.B16, V1.B16; \
	VEOR V1.B16, V7.B16, V7.B16

#define ROUND8(k) \
	ENCROUND(k, V0.B16); \
	ENCROUND(k, V1.B16); \
	ENCROUND(k, V2.B16); \
	ENCROUND(k, V3.B16); \
	ENCROUND(k, V4.B16); \
	ENCROUND(k, V5.B16); \
	ENCROUND(k, V6.B16); \
	ENCROUND(k, V7.B16)

#define LAST(x) \
	AESE V25.B16, x; \
	VEOR V26.B16, x, x

// The keystream blocks of the counter in V8 and its seven successors, in V0 to
// V7. The counter advances by eight; V9 is one in the last byte.
#define KEYSTREAM8 \
	VMOV V8.B16, V0.B16; \
	VADD V9.B16, V0.B16, V1.B16; \
	VADD V9.B16, V1.B16, V2.B16; \
	VADD V9.B16, V2.B16, V3.B16; \
	VADD V9.B16, V3.B16, V4.B16; \
	VADD V9.B16, V4.B16, V5.B16; \
	VADD V9.B16, V5.B16, V6.B16; \
	VADD V9.B16, V6.B16, V7.B16; \
	VADD V9.B16, V7.B16, V8.B16; \
	ROUND8(V16.B16); \
	ROUND8(V17.B16); \
	ROUND8(V18.B16); \
	ROUND8(V19.B16); \
	ROUND8(V20.B16); \
	ROUND8(V21.B16); \
	ROUND8(V22.B16); \
	ROUND8(V23.B16); \
	ROUND8(V24.B16); \
	LAST(V0.B16); \
	LAST(V1.B16); \
	LAST(V2.B16); \
	LAST(V3.B16); \
	LAST(V4.B16); \
	LAST(V5.B16); \
	LAST(V6.B16); \
	LAST(V7.B16)

// XORs x if there is a whole block left, else goes on with the partial block.
#define XORNEXT(x) \
	VMOV x, V0.B16; \
	CMP $16, R3; \
	BLT partial; \
	VLD1 (R2), [V10.B16]; \
	VEOR V10.B16, V0.B16, V0.B16; \
	VST1.P [V0.B16], 16(R2); \
	SUB $16, R3

// func keystreamAESE(ks *aesKey, b, x *block, clear, first uint64, data *byte, n int)
TEXT ·keystreamAESE(SB), NOSPLIT, $0-56
	MOVD ks+0(FP), R0
	MOVD b+8(FP), R1
	MOVD x+16(FP), R4
	MOVD data+40(FP), R2
	MOVD n+48(FP), R3

	// The counter in V8: POLYVAL, then its last byte.
	POLY
	VEOR V31.B16, V31.B16, V31.B16
	FMOVQ (R4), F0
	FMOVQ (R1), F5
	CLEAR
	ACCUMULATE1
	REDUCE
	VMOV V7.D[1], R4
	MOVD clear+24(FP), R5
	BIC R5<<56, R4
	MOVD first+32(FP), R5
	ADD R5<<56, R4
	VMOV V7.B16, V8.B16
	VMOV R4, V8.D[1]
	VEOR V9.B16, V9.B16, V9.B16
	MOVD $(1<<56), R4
	VMOV R4, V9.D[1]
	LOADKEYS
	CMP $128, R3
	BLT rest

loop:
	VLD1.P 64(R2), [V10.B16, V11.B16, V12.B16, V13.B16]
	VLD1 (R2), [V27.B16, V28.B16, V29.B16, V30.B16]
	SUB $64, R2
	KEYSTREAM8
	VEOR V10.B16, V0.B16, V0.B16
	VEOR V11.B16, V1.B16, V1.B16
	VEOR V12.B16, V2.B16, V2.B16
	VEOR V13.B16, V3.B16, V3.B16
	VEOR V27.B16, V4.B16, V4.B16
	VEOR V28.B16, V5.B16, V5.B16
	VEOR V29.B16, V6.B16, V6.B16
	VEOR V30.B16, V7.B16, V7.B16
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R2)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R2)
	SUB $128, R3
	CMP $128, R3
	BGE loop

rest:
	CBZ R3, done
	KEYSTREAM8
	XORNEXT(V0.B16)
	XORNEXT(V1.B16)
	XORNEXT(V2.B16)
	XORNEXT(V3.B16)
	XORNEXT(V4.B16)
	XORNEXT(V5.B16)
	XORNEXT(V6.B16)
	VMOV V7.B16, V0.B16

partial:
	VMOV V0.D[0], R5
	TBZ $3, R3, four
	MOVD (R2), R6
	EOR R5, R6
	MOVD.P R6, 8(R2)
	VMOV V0.D[1], R5

four:
	TBZ $2, R3, two
	MOVWU (R2), R6
	EOR R5, R6
	MOVW.P R6, 4(R2)
	LSR $32, R5

two:
	TBZ $1, R3, one
	MOVHU (R2), R6
	EOR R5, R6
	MOVH.P R6, 2(R2)
	LSR $16, R5

one:
	TBZ $0, R3, done
	MOVBU (R2), R6
	EOR R5, R6
	MOVB R6, (R2)

done:
	RET

// The product of the power in V7 and H in V5 becomes the power number i of the
// last eight.
#define NEXTPOWER(i) \
	VMOV V7.B16, V0.B16; \
	CLEAR; \
	ACCUMULATE1; \
	REDUCE; \
	FMOVQ F7, (POWER8+16*i)(R0)

// Puts the sums of the halves of powers number 2i and 2i+1 in mids[i].
#define SUMHALVES(i) \
	FMOVQ (POWER8+32*i)(R0), F0; \
	FMOVQ (POWER8+32*i+16)(R0), F1; \
	VZIP1 V1.D2, V0.D2, V2.D2; \
	VZIP2 V1.D2, V0.D2, V3.D2; \
	VEOR V2.B16, V3.B16, V3.B16; \
	FMOVQ F3, (hashKey_mids+16*i)(R0)

// func expandPMULL(hk *hashKey, key *block)
TEXT ·expandPMULL(SB), NOSPLIT, $0-16
	MOVD hk+0(FP), R0
	MOVD key+8(FP), R1
	POLY
	VEOR V31.B16, V31.B16, V31.B16
	FMOVQ (R1), F5
	VMOV V5.B16, V7.B16
	FMOVQ F5, POWER1(R0)
	NEXTPOWER(6)
	NEXTPOWER(5)
	NEXTPOWER(4)
	NEXTPOWER(3)
	NEXTPOWER(2)
	NEXTPOWER(1)
	NEXTPOWER(0)
	SUMHALVES(0)
	SUMHALVES(1)
	SUMHALVES(2)
	SUMHALVES(3)
	RET

// func hashPMULL(hk *hashKey, x *block, data *byte, n int, last *byte)
TEXT ·hashPMULL(SB), NOSPLIT, $0-40
	MOVD hk+0(FP), R0
	MOVD x+8(FP), R1
	MOVD data+16(FP), R2
	MOVD n+24(FP), R3
	MOVD last+32(FP), R4
	POLY
	VEOR V31.B16, V31.B16, V31.B16

	// The first one to eight blocks, x among them, so that the rest is groups
	// of eight. R6 points to the power of the next block.
	AND $7, R3, R5
	ADD $POWER1, R0, R6
	SUB R5<<4, R6, R6
	CLEAR
	FMOVQ (R1), F0

first:
	VLD1.P 16(R6), [V5.B16]
	ACCUMULATE1
	CBZ R5, reduce
	SUB $1, R5
	CMP $1, R3
	CSEL EQ, R4, R2, R8
	FMOVQ (R8), F0
	ADD $16, R2
	SUB $1, R3
	B first

reduce:
	REDUCE
	CBZ R3, done
	ADD $POWER8, R0
	VLD1.P 64(R0), [V20.B16, V21.B16, V22.B16, V23.B16]
	VLD1.P 64(R0), [V24.B16, V25.B16, V26.B16, V27.B16]
	VLD1 (R0), [V8.B16, V9.B16, V10.B16, V11.B16]

	// Groups of eight; the element so far, V7, comes last because it is ready
	// last.
loop:
	ADD $112, R2, R8
	CMP $8, R3
	CSEL EQ, R4, R8, R8
	CLEAR
	FMOVQ (R8), F0
	HIGHMID(V27.D1, V27.D2, V11.D2)
	FMOVQ 96(R2), F0
	LOWMID(V26.D1, V26.D2, V11.D1)
	FMOVQ 80(R2), F0
	HIGHMID(V25.D1, V25.D2, V10.D2)
	FMOVQ 64(R2), F0
	LOWMID(V24.D1, V24.D2, V10.D1)
	FMOVQ 48(R2), F0
	HIGHMID(V23.D1, V23.D2, V9.D2)
	FMOVQ 32(R2), F0
	LOWMID(V22.D1, V22.D2, V9.D1)
	FMOVQ 16(R2), F0
	HIGHMID(V21.D1, V21.D2, V8.D2)
	FMOVQ (R2), F0
	VEOR V7.B16, V0.B16, V0.B16
	LOWMID(V20.D1, V20.D2, V8.D1)
	REDUCE
	ADD $128, R2
	SUB $8, R3
	CBNZ R3, loop

done:
	FMOVQ F7, (R1)
	RET
